"""An offline capture, from checked input to a complete run.

Everything that can be refused is refused before the model is loaded: the engine's version, the
model's kind, every prompt's length, the settings of a run to be continued. The lake is created
only after the engine accepted the model. A crash loses what was not yet staged; the same
command carries on from there.
"""

import os
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from tracer.capture import engine_setup
from tracer.capture.engine import start
from tracer.capture.lora import lora_request
from tracer.capture.manifest import (
    CaptureRequest,
    describe_run,
    describe_settings,
    refuse_other_settings,
)
from tracer.capture.prompts import (
    Prompt,
    fit_prompts,
    load_tokenizer,
    request_ids,
    sampled,
    tokenize,
)
from tracer.capture.recording import CaptureSummary, Progress, Recording
from tracer.datasets.options import Dataset
from tracer.errors import NotALakeError
from tracer.store.lake import Lake
from tracer.store.lake_location import is_url
from tracer.store.run_writer import finish_share, writing_run, writing_share
from tracer.store.shares import Share

__all__ = ["capture"]


def capture(
    request: CaptureRequest,
    dataset: Dataset,
    lake_path: Path | str,
    progress: Progress,
    share: Share | None = None,
) -> CaptureSummary:
    """Run the dataset through the model and record every token's routing in the lake.

    Args:
        request: what to capture.
        dataset: all of it.
        lake_path: where to.
        progress: where to report to.
        share: the part of the requests to run, while other processes run the others.

    Raises:
        LakeBusyError: another process writes the run.
        TracerError: of any kind the stages raise; committed requests stay.
    """
    request.check()
    Lake.check_usable(lake_path)
    identity = engine_setup.find_engine(allow_untested=request.allow_untested_engine)
    progress.note(f"importing {identity.distribution} {identity.version}")
    if is_url(lake_path):
        # Clients of S3 do not survive a fork, which is how vLLM starts its processes for a GPU.
        os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "spawn"
    engine_setup.import_engine(identity)
    config = engine_setup.configure(
        request.model,
        request.engine_options,
        request.record,
        lora=request.lora,
        allow_unproved_layout=request.allow_unproved_layout,
    )
    progress.note("tokenising the prompts")
    names = request_ids(dataset.rows, request.samples)
    mine = frozenset(share.take(names) if share else names)
    prompts, skipped = _prompts(request, dataset, config, mine)
    settings = describe_settings(request, dataset.name, dataset.digest, identity, config)
    stored = _stored_run(lake_path, settings)
    if stored is not None:
        lake = Lake.open(lake_path)
    if stored is not None and (done := _done(lake, stored, share, mine, names)):
        progress.note(done)
        summary = CaptureSummary(stored["run_id"], lake.location)
        return _count_run(summary, lake, share, resumed=True)
    progress.note("loading the model")
    engine = start(config)
    try:
        lake = Lake.create(lake_path)
        row = describe_run(settings, engine.config, engine.model)
        writing = (
            writing_share(lake, row, share, names, refuse_other_settings)
            if share
            else writing_run(lake, row, refuse_other_settings)
        )
        with writing as target:
            todo = [prompt for prompt in prompts if prompt.request_id not in target.done]
            progress.begin(len(prompts), len(prompts) - len(todo))
            summary = CaptureSummary(
                target.run_id, lake.location, resumed_requests=len(target.done & mine)
            )
            lora = lora_request(request.lora) if request.lora is not None else None
            Recording(request, engine, target, row, progress, summary, lora).run(
                todo, [prompt for prompt in skipped if prompt.request_id not in target.done]
            )
        return _count_run(summary, lake, share, resumed=False)
    finally:
        engine.shutdown()


def _done(
    lake: Lake,
    stored: Mapping[str, Any],
    share: Share | None,
    mine: Collection[str],
    names: Collection[str],
) -> str | None:
    """What to say where a run, or the share of it, has nothing left to do; completes the run.

    Before a model is loaded, so that who writes it at this moment is told of then.

    Args:
        lake: which.
        stored: the run's row.
        share: the share, if it is one.
        mine: ids of its requests.
        names: ids of all requests.
    """
    run_id = stored["run_id"]
    if stored["status"] == "complete":
        return f"run {run_id} is already complete"
    if share is None:
        with lake.writing(run_id):
            return None
    if finish_share(lake, stored, share, mine, names):
        return f"share {share} of run {run_id} is already in the lake"
    return None


def _prompts(
    request: CaptureRequest, dataset: Dataset, config: Any, mine: Collection[str]
) -> tuple[list[Prompt], list[Prompt]]:
    """(prompts to run, prompts to skip), of the requests in ``mine``."""
    samples = request.samples
    tokenizer = load_tokenizer(config.model_config)
    chat_template = request.chat_template
    if chat_template is None:
        has_template = bool(getattr(tokenizer, "chat_template", None))
        chat_template = dataset.chat_template_default and has_template
    wanted = [row for row in dataset.rows if any(n in mine for n in request_ids([row], samples))]
    prompts = tokenize(wanted, tokenizer, chat_template=chat_template)
    requests = [p for p in sampled(prompts, samples) if p.request_id in mine]
    return fit_prompts(requests, config.model_config.max_model_len, request.too_long)


def _stored_run(lake_path: Path | str, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """The run's row if an earlier call began it; None where there is no such run or lake."""
    try:
        runs = Lake.open(lake_path).runs()
    except NotALakeError:
        return None
    for row in runs:
        if row["run_id"] == settings["run_id"]:
            refuse_other_settings(row, settings)
            return row
    return None


def _count_run(
    summary: CaptureSummary, lake: Lake, share: Share | None, *, resumed: bool
) -> CaptureSummary:
    summary.share = str(share) if share else None
    summary.run_status = lake.run(summary.run_id)["status"]
    columns = ["status", "num_prompt_tokens", "num_generated_tokens"]
    rows = lake.rows("requests", summary.run_id, columns).to_pylist()
    statuses = Counter(entry["status"] for entry in rows)
    summary.num_requests = statuses["complete"]
    summary.num_uncaptured = statuses["uncaptured"]
    summary.num_aborted = statuses["aborted"]
    summary.num_skipped = statuses["skipped"]
    for entry in rows:
        if entry["status"] == "complete":
            summary.num_prompt_tokens += entry["num_prompt_tokens"]
            summary.num_generated_tokens += entry["num_generated_tokens"]
    if resumed:
        summary.resumed_requests = len(rows)
    summary.num_rows = lake.num_rows("routing", summary.run_id)
    return summary
