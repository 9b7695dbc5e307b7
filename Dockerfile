# Two images:
#   docker build -t moe-tracer .                             slim: lake and analysis, any machine
#   docker build -t moe-tracer:capture --target capture .    with vLLM, for NVIDIA GPUs
#
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/data" moe-tracer audit
#   docker run --rm --gpus all --ipc host -v "$PWD:/data" moe-tracer:capture \
#       capture --model allenai/OLMoE-1B-7B-0924 --dataset prompts.jsonl

# A version of vLLM that capture accepts: _TESTED in tracer/capture/engine_setup.py.
FROM vllm/vllm-openai:v0.32.0 AS capture
LABEL org.opencontainers.image.title="moe-tracer (capture)" \
      org.opencontainers.image.description="Records which experts every token of a Mixture-of-Experts model is routed to, with vLLM" \
      org.opencontainers.image.licenses="Apache-2.0"

WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
# A folder each: COPY puts the content of a folder, not the folder, at its destination.
COPY tracer tracer/
COPY queries queries/
COPY schemas schemas/

# The image has its engine already, so no extra is asked for, and what the engine was built and
# tested with is held at its version: pip fails rather than change it. `python3 -m pip`, since
# the first pip on the path may belong to another Python than the one that has vLLM.
RUN python3 -m pip list --format=freeze \
        | grep -E '^(vllm|torch|transformers|tokenizers|numpy|pydantic|pydantic_core)==' \
        > /tmp/engine.txt \
    && python3 -m pip install --no-cache-dir --constraint /tmp/engine.txt . \
    && rm /tmp/engine.txt

# Stays root like its base: models are cached under root's home, GPU drivers are mounted for it.
WORKDIR /data
ENV TRACER_LAKE=/data/lake
# In place of the base image's API server.
ENTRYPOINT ["tracer"]
CMD ["--help"]


# The last stage is what a build without --target makes.
FROM python:3.11-slim AS slim
LABEL org.opencontainers.image.title="moe-tracer" \
      org.opencontainers.image.description="Stores and queries which experts every token of a Mixture-of-Experts model is routed to" \
      org.opencontainers.image.licenses="Apache-2.0"

WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY tracer tracer/
COPY queries queries/
COPY schemas schemas/

# No extra: an engine and torch would make the image twenty times as large.
RUN pip install --no-cache-dir .

# Files that a run leaves in a mounted folder should not be root's.
RUN useradd --create-home tracer \
    && mkdir /data \
    && chown tracer /data
USER tracer

WORKDIR /data
ENV TRACER_LAKE=/data/lake
ENTRYPOINT ["tracer"]
CMD ["--help"]
