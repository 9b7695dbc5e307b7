"""The job file: one YAML document that says what to record, how to check it, where to put it.

``schemas/job.schema.json`` is made of the classes here, texts included (`make docs`), so that
editors check a job file while it is written.
"""

import math
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = [
    "AuditStep",
    "CaptureOptions",
    "DatasetEntry",
    "DriftStep",
    "JobFile",
    "Limit",
    "ModelEntry",
    "ReportStep",
    "Retention",
    "VerifyStep",
    "job_schema",
]

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,59}$")]
Tokens = Literal["last-prompt", "prompt", "generated", "all"]
Share = Annotated[float, Field(ge=0, le=1)]


class _Strict(BaseModel):
    """A misspelt key is an error, not a setting that is ignored."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


class CaptureOptions(_Strict):
    """As the options of `tracer capture` of the same name."""

    run_id: str | None = None
    """Name of the run, made of letters, digits, '.', '_', '-' and {model}, {dataset}, {period},
    {settings}; by default all four that apply."""
    limit: Annotated[int, Field(ge=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] = 16
    weight_precision: Literal["bf16", "f32"] = "bf16"
    too_long: Literal["error", "skip", "truncate"] = "error"
    chat_template: bool | None = None
    temperature: Annotated[float, Field(ge=0)] = 0.0
    ignore_eos: bool = False
    store_text: bool = False
    prompt_field: str | None = None
    domain_field: str | None = None
    id_field: str | None = None
    capture_field: str | None = None
    data_dir: Path | None = None
    domain_map: Path | None = None
    split: str | None = None
    allow_untested_engine: bool = False
    samples: Annotated[int, Field(ge=1)] = 1
    stop: tuple[str, ...] = ()
    top_m: Annotated[int, Field(ge=0)] = 0
    router_logits: bool = False
    router_weights: bool = False
    lora: Path | None = None
    allow_unproved_layout: bool = False


class ModelEntry(_Strict):
    """A model, with what it alone needs."""

    model: str
    """Folder of a checkpoint, or a hub name."""
    name: Name | None = None
    """What {model} stands for; by default the last part of the model."""
    engine: tuple[str, ...] = ()
    """Words for vLLM, behind those of the job."""
    lora: Path | None = None
    """Folder of an adapter, in the place of the job's."""


class DatasetEntry(_Strict):
    """A dataset, with what it alone needs; keys as in `options`, in their place."""

    dataset: str
    """demo, mmlu, a file, or a text dataset on the hub."""
    name: Name | None = None
    """What {dataset} stands for; by default the last part of the dataset."""
    limit: Annotated[int, Field(ge=1)] | None = None
    prompt_field: str | None = None
    domain_field: str | None = None
    id_field: str | None = None
    capture_field: str | None = None
    data_dir: Path | None = None
    domain_map: Path | None = None
    split: str | None = None


class VerifyStep(_Strict):
    """As `tracer verify` of the run; always done."""

    max_dropped: Share | None = None
    """Most requests, as a share, that may be missing: skipped or aborted."""


class AuditStep(_Strict):
    """As the options of `tracer audit`; the result is written to `output`."""

    mode: Literal["gate", "reference", "paper"] = "gate"
    tokens: Tokens | None = None
    min_presence: Annotated[float, Field(gt=0, le=1)] = 0.8
    rank_cutoff: Annotated[int, Field(ge=1)] | None = None
    domains: Path | None = None
    allow_missing_tokens: bool = False
    draws: Annotated[int, Field(ge=0)] | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    same_token: bool = False
    exclude_template: bool = False
    format: Literal["json", "csv", "table"] = "json"
    output: Path
    """File to write; {model}, {dataset}, {period} and {run_id} stand for what they say."""
    require: tuple[Literal["agreement", "differences"], ...] = ()
    """Verdicts that must be claimed beyond chance; else the job ends with 1."""


class Limit(_Strict):
    """How far a column may go."""

    min: float | None = None
    max: float | None = None

    @model_validator(mode="after")
    def _one_at_least(self) -> Self:
        if self.min is None and self.max is None:
            raise ValueError("a limit has `min`, `max` or both")
        return self


class DriftStep(_Strict):
    """The run beside the last good one of the same model and dataset."""

    against: str = "last-good"
    """last-good, or a run that is always compared with; it is never removed."""
    limits: Annotated[
        dict[
            Annotated[str, Field(pattern=r"^[a-z_0-9]+\.[a-z_0-9]+$")],
            Annotated[float, Field(ge=0)] | Limit,
        ],
        Field(min_length=1, json_schema_extra={"additionalProperties": False}),
    ] = {
        "usage_drift.total_variation": 0.05,
        "eci_drift.eci_change": 0.05,
        "committee_drift.jaccard": Limit(min=0.5),
    }
    """MEASURE.COLUMN of a measure of two runs (`tracer query`): a number, the most its absolute
    value may be, or min and max."""
    alpha: Annotated[float, Field(gt=0, le=1)] | None = 0.01
    """A value beyond its limit counts where its probability by chance, after correction over all
    rows, is at most this; null lets it count in any case."""
    tokens: Tokens = "all"
    domains: Path | None = None
    exclude_template: bool = False
    draws: Annotated[int, Field(ge=0)] = 199
    seed: Annotated[int, Field(ge=0)] = 0
    level: Annotated[float, Field(gt=0, lt=1)] = 0.95

    @model_validator(mode="after")
    def _enough_draws(self) -> Self:
        if self.alpha is not None and (self.draws + 1) * self.alpha < 1 - 1e-9:
            raise ValueError(
                f"{self.draws} draws cannot show a probability of {self.alpha:g}; at least"
                f" {math.ceil(1 / self.alpha - 1e-9) - 1} can, or set alpha to null"
            )
        return self


class ReportStep(_Strict):
    """As the options of `tracer report`."""

    min_presence: Annotated[float, Field(gt=0, le=1)] = 0.8
    domains: Path | None = None
    allow_missing_tokens: bool = False
    draws: Annotated[int, Field(ge=0)] | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    output: Path = Path("report.html")
    """File to write; {model}, {dataset}, {period} and {run_id} stand for what they say."""


class Retention(_Strict):
    """Which runs of this job stay in the lake; what any key keeps stays.

    The last good run and the one compared with always stay; so do all reports and audits.
    """

    runs: Annotated[int, Field(ge=1)] | None = None
    """Good runs of each model and dataset to keep, and what is younger than the oldest of them."""
    days: Annotated[float, Field(gt=0)] | None = None
    """Runs that began so many days ago or later stay."""
    keep_hours: Annotated[float, Field(ge=0)] = 168.0
    """How long files stay on disk after they left the tables."""
    compact: bool = False
    """Merge the small files of a new run, as `tracer compact`."""


class JobFile(_Strict):
    """A whole job: every model with every dataset. Paths are relative to the job file."""

    name: Name | None = None
    """Of the job, which finds its earlier runs by it; by default the file's name."""
    model: str | None = None
    """One model; or `models`."""
    dataset: str | None = None
    """One dataset; or `datasets`."""
    models: tuple[str | ModelEntry, ...] = ()
    datasets: tuple[str | DatasetEntry, ...] = ()
    lake: str = "lake"
    every: Literal["once", "hour", "day", "week", "month"] = "once"
    """A new run each hour, day, week or month of UTC, though the settings are the same."""
    options: CaptureOptions = CaptureOptions()
    engine: tuple[str, ...] = ()
    """Options of vLLM, one word each, such as ["--dtype", "float32"]."""
    verify: VerifyStep = VerifyStep()
    audit: AuditStep | None = None
    """One audit; or `audits`."""
    audits: tuple[AuditStep, ...] = ()
    drift: DriftStep | None = None
    report: ReportStep | None = None
    retention: Retention | None = None

    @model_validator(mode="after")
    def _one_form_of_each(self) -> Self:
        for one, several in (("model", "models"), ("dataset", "datasets")):
            if (getattr(self, one) is None) == (not getattr(self, several)):
                raise ValueError(f"a job has `{one}` or `{several}`, one of them")
        if self.audit is not None and self.audits:
            raise ValueError("a job has `audit` or `audits`, not both")
        return self

    @property
    def model_entries(self) -> tuple[ModelEntry, ...]:
        """Every model."""
        given = self.models or (self.model or "",)
        return tuple(ModelEntry(model=one) if isinstance(one, str) else one for one in given)

    @property
    def dataset_entries(self) -> tuple[DatasetEntry, ...]:
        """Every dataset."""
        given = self.datasets or (self.dataset or "",)
        return tuple(DatasetEntry(dataset=one) if isinstance(one, str) else one for one in given)

    @property
    def audit_steps(self) -> tuple[AuditStep, ...]:
        """Every audit."""
        return self.audits or ((self.audit,) if self.audit else ())


def job_schema() -> dict[str, Any]:
    """JSON schema of a job file."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **JobFile.model_json_schema(),
        "title": "A job of moe-tracer",
    }
