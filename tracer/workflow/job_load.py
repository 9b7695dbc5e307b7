"""Reads a job file and checks what its parts say together."""

import re
import string
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from tracer.analysis.drift import check_limits
from tracer.errors import InputError
from tracer.store.lake_location import is_url
from tracer.workflow.drift_limits import limits_of
from tracer.workflow.job_combination import combinations
from tracer.workflow.job_file import DatasetEntry, JobFile, ModelEntry

__all__ = ["load_job"]

# What pydantic puts into a place to say which form of a value it tried.
_FORMS = re.compile(r"str|ModelEntry|DatasetEntry|constrained-float|function-after\[.*")
_OWN_DATASETS = ("demo", "mmlu")
_IN_OUTPUTS = ("model", "dataset", "period", "run_id")
_IN_RUN_ID = ("model", "dataset", "period", "settings")


def load_job(path: Path) -> JobFile:
    """Read and check a job file; its paths come back absolute and everything has its name.

    Raises:
        InputError: it cannot be read, is not YAML, or says something a job does not know.
    """
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), _OneOfEachKey)  # noqa: S506 - a safe one
        job = _resolved(JobFile.model_validate(raw), path.absolute().parent, path.stem)
        _check_names(job)
        if job.drift is not None:
            check_limits(limits_of(job.drift))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not YAML: {error}") from error
    except ValidationError as error:
        first = _told_first(error)
        where = ".".join(str(part) for part in first["loc"] if not _FORMS.fullmatch(str(part)))
        where = where or "the document"
        keys = ", ".join(JobFile.model_fields)
        message = first["msg"].removeprefix("Value error, ")
        raise InputError(f"{path}: {where}: {message}", f"keys: {keys}.") from error
    except InputError as error:
        raise InputError(f"{path}: {error}", error.hint) from error
    except (ValueError, RecursionError) as error:  # of YAML's: no such date, too deep
        raise InputError(f"{path} is not YAML: {error}") from error
    return job


class _OneOfEachKey(yaml.SafeLoader):
    """Refuses a key that is there twice, of which YAML would take the last in silence."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        # Here, since what `<<` merges is put beside a mapping's own keys later.
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := [key for key in keys if keys.count(key) > 1]:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {twice[0]!r} is there twice", node.start_mark
            )
        return node


def _told_first(error: ValidationError) -> Any:
    """The first thing that is wrong; of a mapping not that it is no text and no number."""
    found = error.errors()
    plain = ("string_type", "float_type")
    mapped = [e for e in found if not (e["type"] in plain and isinstance(e["input"], dict))]
    return (mapped or found)[0]


def _resolved(job: JobFile, folder: Path, stem: str) -> JobFile:
    """Every path below ``folder``; model and dataset only where such a file is there."""

    def below(part: Any) -> Any:
        if not isinstance(part, BaseModel):
            return part
        paths = {name: folder / value for name, value in part if isinstance(value, Path)}
        return part.model_copy(update=paths)

    def found(value: str) -> str:
        return str(folder / value) if (folder / value).exists() else value

    def model(one: ModelEntry) -> ModelEntry:
        name = one.name or _name(one.model)
        return below(one.model_copy(update={"model": found(one.model), "name": name}))  # type: ignore[no-any-return]

    def dataset(one: DatasetEntry) -> DatasetEntry:
        # `demo` and `mmlu` even where a folder of that name lies beside the file.
        where = one.dataset if one.dataset in _OWN_DATASETS else found(one.dataset)
        name = one.name or _name(one.dataset.split("/")[-1].split(".")[0])
        return below(one.model_copy(update={"dataset": where, "name": name}))  # type: ignore[no-any-return]

    return job.model_copy(
        update={
            "name": job.name or _name(stem),
            "model": None,
            "models": tuple(map(model, job.model_entries)),
            "dataset": None,
            "datasets": tuple(map(dataset, job.dataset_entries)),
            "lake": job.lake if is_url(job.lake) else str(folder / job.lake),
            "options": below(job.options),
            "audit": None,
            "audits": tuple(map(below, job.audit_steps)),
            "drift": below(job.drift),
            "report": below(job.report),
        }
    )


def _name(text: str) -> str:
    """The last part of ``text`` with characters that names may have."""
    last = re.sub(r"[^A-Za-z0-9._-]+", "-", text.rstrip("/").split("/")[-1]).strip("-._")
    return last[:60] or "unnamed"


def _check_names(job: JobFile) -> None:
    """See that what several runs write does not collide.

    Raises:
        InputError: two entries, run ids or outputs of one name, or an unknown {word}.
    """
    for kind, names in (
        ("models", [one.name for one in job.model_entries]),
        ("datasets", [one.name for one in job.dataset_entries]),
    ):
        if twice := [name for name in names if names.count(name) > 1]:
            raise InputError(f"{kind}: two have the name {twice[0]!r}", "give each its `name`.")
    needed = [kind for kind in ("model", "dataset") if len(getattr(job, f"{kind}s")) > 1]
    if (run_id := job.options.run_id) is not None:
        of_period = ["period"] if job.every != "once" else []
        _check_words("options.run_id", run_id, _IN_RUN_ID, [*needed, *of_period], job)
    outputs: dict[Path, str] = {}
    steps = [(f"audits.{n}.output", step.output) for n, step in enumerate(job.audits)]
    if job.report is not None:
        steps.append(("report.output", job.report.output))
    for key, output in steps:
        _check_words(key, str(output), _IN_OUTPUTS, needed, job)
        if output in outputs:
            raise InputError(f"{key}: {outputs[output]} writes the same file")
        outputs[output] = key
    # "{model}-{dataset}" is one name for a-b with c and for a with b-c.
    written: set[Path] = set()
    for one in combinations(job):
        for key, output in ((key, output) for output, key in outputs.items()):
            file = one.output(output, f"{one.number}")
            if file in written:
                raise InputError(
                    f"{key}: two runs would write the same file {file}",
                    "put / between {model} and {dataset}, or {run_id} into it.",
                )
            written.add(file)


def _check_words(
    key: str, text: str, known: tuple[str, ...], needed: list[str], job: JobFile
) -> None:
    hint = f"there are: {', '.join(f'{{{word}}}' for word in known)}."
    try:
        words = {word for _, word, _, _ in string.Formatter().parse(text) if word is not None}
    except ValueError as error:
        raise InputError(f"{key}: {error}", hint) from error
    if strange := sorted(words - set(known)):
        raise InputError(f"{key}: nothing is known of {{{strange[0]}}}", hint)
    if "period" in words and job.every == "once":
        raise InputError(f"{key}: {{period}} needs `every`", "set every: day, for example.")
    missing = [word for word in needed if word not in words]
    if missing and "run_id" not in words:
        raise InputError(
            f"{key}: several runs would have the one name {text!r}",
            f"put {' and '.join(f'{{{word}}}' for word in missing)} into it.",
        )
