"""What is asked of a dataset and what comes back, with the digest that identifies it."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tracer.errors import InputError
from tracer.records import DatasetRow

__all__ = ["Dataset", "DatasetOptions", "digest_of", "refuse_options"]

_FLAGS = {
    "data_dir": "--data-dir",
    "prompt_field": "--prompt-field",
    "domain_field": "--domain-field",
    "id_field": "--id-field",
    "capture_field": "--capture-field",
    "domain_map": "--domain-map",
    "split": "--split",
}


@dataclass(frozen=True, slots=True)
class DatasetOptions:
    """How to read a dataset; None leaves the choice to the source.

    data_dir: folder of the original MMLU files (mmlu only)
    prompt_field, domain_field, id_field, capture_field: column names (files and hub datasets)
    limit: take this many rows, round-robin over subjects, else over domains
    domain_map: TOML file, domain -> list of subjects (mmlu only)
    split: name of the split (mmlu and hub datasets)
    """

    data_dir: Path | None = None
    prompt_field: str | None = None
    domain_field: str | None = None
    id_field: str | None = None
    capture_field: str | None = None
    limit: int | None = None
    domain_map: Path | None = None
    split: str | None = None


@dataclass(frozen=True, slots=True)
class Dataset:
    """The prompts of one run, in the order they are sent.

    name: as the user gave it
    digest: sha256, hex, of ids, prompts, domains, labels and what is captured, in order
    chat_template_default: prompts are questions meant for the model's chat template
    unmapped: MMLU subject -> rows in ``rows`` that have no domain
    """

    name: str
    rows: tuple[DatasetRow, ...]
    digest: str
    chat_template_default: bool
    unmapped: Mapping[str, int]


def digest_of(rows: Iterable[DatasetRow]) -> str:
    """Return the sha256, in hex, of ids, prompts, domains, labels and what is captured.

    Every text goes in behind its length in bytes (8 bytes, big-endian), so that moving a
    character from an id to its prompt changes the digest; labels as JSON with sorted keys. Where
    rows are not to be captured, one more text follows: their ids as a JSON list.
    """
    sha = hashlib.sha256()
    uncaptured: list[str] = []
    for row in rows:
        labels = json.dumps(dict(row.labels), sort_keys=True)
        for text in (row.row_id, row.prompt, row.domain, labels):
            _add(sha, text)
        if not row.capture:
            uncaptured.append(row.row_id)
    if uncaptured:
        _add(sha, json.dumps(uncaptured))
    return sha.hexdigest()


def _add(sha: "hashlib._Hash", text: str) -> None:
    raw = text.encode()
    sha.update(len(raw).to_bytes(8, "big"))
    sha.update(raw)


def refuse_options(what: str, options: DatasetOptions, *names: str) -> None:
    """Refuse options that the source would have to ignore.

    Raises:
        InputError: one of ``names`` was given.
    """
    for name in names:
        if getattr(options, name) is not None:
            raise InputError(f"{_FLAGS[name]} has no meaning for {what}", "leave it out.")
