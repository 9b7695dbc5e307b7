"""MMLU: questions as COMMITTEEAUDIT prompts them, from the original files or the hub."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from tracer.datasets.files import csv_records
from tracer.datasets.hub import hub_split
from tracer.datasets.options import DatasetOptions
from tracer.domain_map import load_domains
from tracer.errors import DatasetError
from tracer.records import NO_DOMAIN, DatasetRow

__all__ = ["BUNDLED_MAP", "HUB_NAME", "mmlu_rows", "unmapped_subjects"]

BUNDLED_MAP = Path(__file__).with_name("mmlu_domains.toml")
HUB_NAME = "cais/mmlu"
_HUB_CONFIG = "all"
_HUB_COLUMNS = ("question", "subject", "choices", "answer")
_LETTERS = "ABCD"
_NUM_FIELDS = 6
_HINT_FOLDER = "--data-dir names the folder of the original release, which holds data/test."
_HINT_HUB = "give the original files with --data-dir to do without the hub."


def mmlu_rows(options: DatasetOptions) -> Iterator[DatasetRow]:
    """Yield the questions, by default of the test split, subject by subject as stored.

    Args:
        options: ``data_dir`` (else the hub copy), ``domain_map``, ``split``

    Raises:
        DatasetError: files missing or damaged, or the hub out of reach.
        InputError: the domain map cannot be used.
        MissingLibraryError: the hub copy is needed and ``datasets`` is not installed.
    """
    domains = load_domains(options.domain_map or BUNDLED_MAP)
    split = options.split or "test"
    if options.data_dir is None:
        return _hub_rows(split, domains)
    return _folder_rows(options.data_dir, split, domains)


def unmapped_subjects(rows: Iterable[DatasetRow]) -> dict[str, int]:
    """Count the rows without a domain by subject."""
    return dict(Counter(row.labels["subject"] for row in rows if row.domain == NO_DOMAIN))


def _row(
    subject: str,
    index: int,
    *,
    question: str,
    choices: Sequence[str],
    answer: str,
    domains: Mapping[str, str],
) -> DatasetRow:
    lines = [f"{letter}. {choice}" for letter, choice in zip(_LETTERS, choices, strict=True)]
    return DatasetRow(
        row_id=f"{subject}/{index:04d}",
        prompt="\n".join((f"Question: {question}", "Choices:", *lines, "Answer:")),
        domain=domains.get(subject, NO_DOMAIN),
        labels={"subject": subject, "answer": answer},
    )


def _folder_rows(data_dir: Path, split: str, domains: Mapping[str, str]) -> Iterator[DatasetRow]:
    # The release shortens the name that the hub copy uses.
    short = {"validation": "val"}.get(split, split)
    tried = [data_dir / "data" / short, data_dir / short]
    ending = f"_{short}.csv"
    for folder in tried:
        paths = sorted(folder.glob(f"*{ending}"))
        if paths:
            break
    else:
        raise DatasetError(f"no *{ending} files in {tried[0]} nor in {tried[1]}", _HINT_FOLDER)
    for path in paths:
        subject = path.name.removesuffix(ending)
        for index, (line, fields) in enumerate(csv_records(path)):
            if len(fields) != _NUM_FIELDS or fields[-1] not in tuple(_LETTERS):
                raise DatasetError(
                    f"{path}, line {line}: not a question, four choices and an answer A to D",
                    _HINT_FOLDER,
                )
            yield _row(
                subject,
                index,
                question=fields[0],
                choices=fields[1:-1],
                answer=fields[-1],
                domains=domains,
            )


def _hub_rows(split: str, domains: Mapping[str, str]) -> Iterator[DatasetRow]:
    found = hub_split(HUB_NAME, _HUB_CONFIG, split, _HINT_HUB)
    for column in _HUB_COLUMNS:
        if column not in found.column_names:
            raise DatasetError.missing_column(HUB_NAME, column, found.column_names)
    indices: Counter[str] = Counter()
    for number, record in enumerate(found.select_columns(list(_HUB_COLUMNS))):
        question, subject, choices, answer = (record[column] for column in _HUB_COLUMNS)
        if len(choices) != len(_LETTERS) or answer not in range(len(_LETTERS)):
            raise DatasetError(
                f"{HUB_NAME}, row {number}: not a question with four choices and an answer 0 to 3",
                _HINT_HUB,
            )
        yield _row(
            subject,
            indices[subject],
            question=question,
            choices=choices,
            answer=_LETTERS[answer],
            domains=domains,
        )
        indices[subject] += 1
