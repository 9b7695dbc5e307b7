"""The job file: one YAML document that says what to record, how to audit it, where to put it."""

from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tracer.errors import InputError
from tracer.store.lake_location import is_url

__all__ = ["AuditStep", "CaptureOptions", "JobFile", "ReportStep", "load_job"]


class _Strict(BaseModel):
    """A misspelt key is an error, not a setting that is ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class CaptureOptions(_Strict):
    """As the options of `tracer capture` of the same name."""

    run_id: str | None = None
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


class AuditStep(_Strict):
    """As the options of `tracer audit`; the result is written to ``output``."""

    mode: Literal["gate", "reference", "paper"] = "gate"
    tokens: Literal["last-prompt", "prompt", "generated", "all"] | None = None
    min_presence: Annotated[float, Field(gt=0, le=1)] = 0.8
    rank_cutoff: Annotated[int, Field(ge=1)] | None = None
    domains: Path | None = None
    allow_missing_tokens: bool = False
    draws: Annotated[int, Field(ge=0)] | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    same_token: bool = False
    format: Literal["json", "csv", "table"] = "json"
    output: Path


class ReportStep(_Strict):
    """As the options of `tracer report`."""

    min_presence: Annotated[float, Field(gt=0, le=1)] = 0.8
    domains: Path | None = None
    allow_missing_tokens: bool = False
    draws: Annotated[int, Field(ge=0)] | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    output: Path = Path("report.html")


class JobFile(_Strict):
    """A whole job. Paths are relative to the folder of the job file.

    engine: vLLM options, one word each, such as ["--dtype", "float32"]
    """

    model: str
    dataset: str
    lake: str = "lake"
    options: CaptureOptions = CaptureOptions()
    engine: tuple[str, ...] = ()
    audit: AuditStep | None = None
    report: ReportStep | None = None


def load_job(path: Path) -> JobFile:
    """Read and check a job file; its paths come back absolute.

    Raises:
        InputError: it cannot be read, is not YAML, or says something a job does not know.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
        job = JobFile.model_validate(raw)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not YAML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the document"
        raise InputError(
            f"{path}: {where}: {first['msg']}",
            "keys: model, dataset, lake, options, engine, audit, report.",
        ) from error
    return _resolved(job, path.absolute().parent)


def _resolved(job: JobFile, folder: Path) -> JobFile:
    """Every path below ``folder``; model and dataset only where such a file is there."""

    def step(part: _Strict | None) -> _Strict | None:
        if part is None:
            return None
        paths = {name: folder / value for name, value in part if isinstance(value, Path)}
        return part.model_copy(update=paths)

    def named(value: str) -> str:
        own = value in ("demo", "mmlu")  # even where a folder of that name lies beside the file
        return str(folder / value) if not own and (folder / value).exists() else value

    return job.model_copy(
        update={
            "model": named(job.model),
            "dataset": named(job.dataset),
            "lake": job.lake if is_url(job.lake) else str(folder / job.lake),
            "options": step(job.options),
            "audit": step(job.audit),
            "report": step(job.report),
        }
    )
