"""``load_dataset``: which source a name means, and what every source gives back."""

from collections.abc import Iterator
from pathlib import Path

from tracer.datasets.files import SUFFIXES, known_suffix, read_table
from tracer.datasets.hub import PROMPT_NAMES, hub_table, is_hub_name
from tracer.datasets.mmlu import mmlu_rows, unmapped_subjects
from tracer.datasets.options import Dataset, DatasetOptions, digest_of, refuse_options
from tracer.datasets.sampling import take_round_robin
from tracer.datasets.table import rows_of
from tracer.errors import DatasetError, InputError
from tracer.records import DatasetRow

__all__ = ["DEMO_PATH", "load_dataset"]

DEMO_PATH = Path(__file__).parent / "prompts" / "demo.jsonl"

_DEMO = "demo"
_MMLU = "mmlu"
_FIELD_OPTIONS = ("prompt_field", "domain_field", "id_field", "capture_field")
# Kinds of files that people pass and that no hub name ends in.
_FOREIGN_SUFFIXES = (".json", ".txt", ".tsv", ".gz", ".zip", ".zst", ".arrow", ".xlsx")
_KINDS = f"demo, mmlu, a file ({', '.join(SUFFIXES)}), or owner/name on the Hugging Face hub"


def load_dataset(name: str, options: DatasetOptions) -> Dataset:
    """Load the prompts that ``name`` means.

    Args:
        name: "demo", "mmlu", a file (JSON lines plain or zstandard, CSV, Parquet), a folder of
            such files, or "owner/name" or "owner/name:config" on the Hugging Face hub
        options: columns, split and limit; an option that ``name`` has no use for is refused

    Raises:
        DatasetError: nothing there, damaged, empty, or lacking what capture needs.
        InputError: an option that cannot be used.
        MissingLibraryError: a hub dataset or folder without the ``datasets`` library.
    """
    if options.limit is not None and options.limit <= 0:
        raise InputError(f"a limit of {options.limit} rows leaves none", "give at least 1.")
    rows = _rows(name, options)
    taken = tuple(rows) if options.limit is None else tuple(take_round_robin(rows, options.limit))
    if not taken:
        raise DatasetError.empty(name)
    is_mmlu = name == _MMLU
    return Dataset(
        name=name,
        rows=taken,
        digest=digest_of(taken),
        chat_template_default=is_mmlu,
        unmapped=unmapped_subjects(taken) if is_mmlu else {},
    )


def _rows(name: str, options: DatasetOptions) -> Iterator[DatasetRow]:
    if name == _MMLU:
        refuse_options(name, options, *_FIELD_OPTIONS)
        return mmlu_rows(options)
    if name == _DEMO:
        refuse_options(name, options, "data_dir", "domain_map", "split", *_FIELD_OPTIONS)
        return rows_of(read_table(DEMO_PATH, options), options)
    refuse_options(name, options, "data_dir", "domain_map")
    path = Path(name).expanduser()
    if name and path.is_dir():
        return rows_of(hub_table(str(path), options), options, PROMPT_NAMES)
    if known_suffix(name) or path.is_file() or _looks_like_path(name):
        refuse_options(name, options, "split")
        if not path.exists():
            raise DatasetError(f"no such file: {name}", f"known datasets are {_KINDS}.")
        return rows_of(read_table(path, options), options)
    if is_hub_name(name):
        return rows_of(hub_table(name, options), options, PROMPT_NAMES)
    raise DatasetError(f"no dataset is named {name!r}", f"known are {_KINDS}.")


def _looks_like_path(name: str) -> bool:
    return (
        name.startswith(("/", "./", "../", "~"))
        or name.count("/") > 1
        or name.lower().endswith(_FOREIGN_SUFFIXES)
    )
