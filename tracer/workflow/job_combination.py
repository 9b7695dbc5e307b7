"""One model with one dataset of a job: what is to be captured, and under which name."""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tracer.capture.known_settings import known_settings, settings_digest
from tracer.capture.manifest import CaptureRequest
from tracer.datasets.loader import load_dataset
from tracer.datasets.options import DatasetOptions
from tracer.errors import InputError
from tracer.store.lake import check_run_id
from tracer.workflow.job_file import DatasetEntry, JobFile, ModelEntry
from tracer.workflow.periods import check_period, period_of

__all__ = ["Combination", "NamedRun", "chosen", "combinations", "name_run"]

_DATASET_FIELDS = tuple(DatasetOptions.__dataclass_fields__)


@dataclass(frozen=True, slots=True)
class Combination:
    """A model with a dataset, in one period.

    number: from 1, in the order of the job file, models first
    model, dataset: their names in the job
    source: the dataset as `tracer capture` takes it
    request: of the capture; its run id is still the job file's own words
    """

    number: int
    job: str
    model: str
    dataset: str
    period: str | None
    source: str
    request: CaptureRequest
    dataset_options: DatasetOptions

    @property
    def title(self) -> str:
        """How it is called to users."""
        return f"{self.model}/{self.dataset}"

    def output(self, path: Path, run_id: str) -> Path:
        """A path of the job file with its words filled in."""
        words = {"model": self.model, "dataset": self.dataset, "period": self.period}
        return Path(str(path).format(**words, run_id=run_id))


@dataclass(frozen=True, slots=True)
class NamedRun:
    """The run of a combination: its request with its name, and what it will be made of.

    settings: columns of `runs` that are known before the engine is
    num_requests: of the whole dataset
    """

    request: CaptureRequest
    run_id: str
    settings: dict[str, Any]
    num_requests: int


def combinations(job: JobFile, period: str | None = None) -> list[Combination]:
    """Every model with every dataset, of ``period`` or of the one that it is now.

    Raises:
        InputError: no such period.
    """
    if period is not None:
        period = check_period(job.every, period)
    else:
        period = period_of(job.every, datetime.datetime.now(datetime.UTC))
    pairs = [(model, data) for model in job.model_entries for data in job.dataset_entries]
    return [
        _combination(job, number, model, data, period)
        for number, (model, data) in enumerate(pairs, start=1)
    ]


def _combination(
    job: JobFile, number: int, model: ModelEntry, data: DatasetEntry, period: str | None
) -> Combination:
    options = job.options.model_dump()
    options |= {name: value for name in ("lora",) if (value := getattr(model, name)) is not None}
    own = data.model_dump(exclude={"dataset", "name"}, exclude_none=True)
    dataset_options = {name: options.pop(name) for name in _DATASET_FIELDS} | own
    return Combination(
        number=number,
        job=str(job.name),
        model=str(model.name),
        dataset=str(data.name),
        period=period,
        source=data.dataset,
        request=CaptureRequest(
            model=model.model, engine_options=(*job.engine, *model.engine), **options
        ),
        dataset_options=DatasetOptions(**dataset_options),
    )


def chosen(every: Sequence[Combination], only: Sequence[str]) -> list[Combination]:
    """Those that ``only`` names by number or MODEL/DATASET; all where it names none.

    Raises:
        InputError: it names one that is not there.
    """
    known = {word: one for one in every for word in (str(one.number), one.title)}
    for word in only:
        if word not in known:
            raise InputError(
                f"the job has no combination {word!r}",
                f"there are 1 to {len(every)}: {', '.join(one.title for one in every[:8])}.",
            )
    return [one for one in every if not only or {str(one.number), one.title} & set(only)]


def name_run(combination: Combination) -> NamedRun:
    """Read the dataset and name the run; no engine is imported.

    Raises:
        TracerError: the dataset cannot be read, or the name cannot be used.
    """
    dataset = load_dataset(combination.source, combination.dataset_options)
    request = combination.request
    settings = known_settings(request, dataset)
    words = {
        "model": combination.model,
        "dataset": combination.dataset,
        "period": combination.period,
        "settings": settings_digest(settings),
    }
    default = "-".join(f"{{{word}}}" for word, value in words.items() if value)
    run_id = check_run_id((request.run_id or default).format(**words))
    return NamedRun(
        replace(request, run_id=run_id), run_id, settings, len(dataset.rows) * request.samples
    )
