"""Datasets of the Hugging Face hub, or of a local folder, through the ``datasets`` library.

The library is an extra and slow to import, so it loads on first use.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tracer.datasets.options import DatasetOptions
from tracer.datasets.table import Table
from tracer.errors import DatasetError, MissingLibraryError, first_line

__all__ = ["PROMPT_NAMES", "hub_split", "hub_table", "is_hub_name"]

PROMPT_NAMES = ("prompt", "text", "question", "instruction", "content")

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(:[^/\s]+)?")
_SPLITS = ("test", "validation", "train")
_BATCH_ROWS = 1024


def is_hub_name(name: str) -> bool:
    """Tell whether ``name`` reads "owner/name" or "owner/name:config"."""
    return _HUB_NAME.fullmatch(name) is not None


def hub_table(name: str, options: DatasetOptions) -> Table:
    """Open a hub dataset ("owner/name", "owner/name:config") or a folder of data files.

    The split is the one asked for, else test, else validation, else train.

    Raises:
        DatasetError: it cannot be loaded, or has none of these splits.
        MissingLibraryError: the ``datasets`` library is not installed.
    """
    path, config = name, None
    if not Path(name).is_dir():
        path, _, config = name.partition(":")
    hint = "check the name and the network, or give a local file."
    found = hub_split(path, config or None, options.split, hint)
    if options.split is None:
        split = next((split for split in _SPLITS if split in found), None)
        if split is None:
            raise DatasetError(
                f"{name} has none of the splits {', '.join(_SPLITS)}; it has: {', '.join(found)}",
                "name one with --split.",
            )
        found = found[split]
    if not len(found):
        raise DatasetError.empty(name)
    columns = tuple(found.column_names)
    named: set[str | None] = {*PROMPT_NAMES, "id", "domain"}
    named |= {options.prompt_field, options.id_field, options.domain_field, options.capture_field}
    features = found.features
    wanted = [name for name in columns if name in named or _is_scalar(features[name])]
    return Table(name, columns, _records(found.select_columns(wanted), wanted))


def hub_split(path: str, config: str | None, split: str | None, hint: str) -> Any:
    """Load one split, or with ``split`` None a mapping of all.

    Args:
        path: "owner/name" or a folder
        config: name of the configuration; None for the only one
        split: a split, or a slice of one as the library writes it ("train[:100]")
        hint: the way out to print if it cannot be loaded

    Raises:
        DatasetError: no network, no such dataset, configuration or split, damaged files.
        MissingLibraryError: the ``datasets`` library is not installed.
    """
    try:
        import datasets
    except ImportError as error:
        raise MissingLibraryError("datasets", "hub") from error
    try:
        return datasets.load_dataset(path, config, split=split)
    except Exception as error:  # its own, the hub client's and the HTTP client's have no base
        # This one says only that something failed; what failed is its cause.
        vague = isinstance(error, datasets.exceptions.DatasetGenerationError)
        reason = (error.__cause__ if vague else None) or error
        raise DatasetError(f"cannot load the dataset {path}: {first_line(reason)}", hint) from error


def _is_scalar(feature: Any) -> bool:
    """Tell whether a column is a plain value: no list, image or sound to decode in vain."""
    import datasets

    return isinstance(feature, datasets.Value | datasets.ClassLabel)


def _records(found: Any, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, object]]]:
    import datasets

    # A class label is stored as a number; its name is what a user calls a domain.
    classes = {
        column: found.features[column].names
        for column in columns
        if isinstance(found.features[column], datasets.ClassLabel)
    }
    number = 0
    for batch in found.iter(_BATCH_ROWS):
        for values in zip(*(batch[column] for column in columns), strict=True):
            record = dict(zip(columns, values, strict=True))
            for column, names in classes.items():
                index = record[column]
                # -1 marks a row without a class.
                record[column] = names[index] if isinstance(index, int) and index >= 0 else None
            yield f"row {number}", record
            number += 1
