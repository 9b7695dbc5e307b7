"""Which labels form a domain: a TOML file, a line per domain, in a table [domains] or without one.

    "STEM-Math" = ["abstract_algebra", "college_mathematics"]
    "Humanities" = ["philosophy"]

A capture of MMLU looks subjects up in it. An audit looks a request up by its label `subject`
first, then by its domain; one that matches nothing keeps its domain.
"""

import tomllib
from pathlib import Path
from typing import Any

from tracer.errors import InputError
from tracer.records import NO_DOMAIN

__all__ = ["load_domains"]

_FORM = 'write one line per domain: "STEM" = ["physics", "chemistry"].'


def load_domains(path: Path | str) -> dict[str, str]:
    """Domain by label.

    Raises:
        InputError: unreadable, not of that form, or a label listed twice.
    """
    what = f"the domain map {path}"
    by_label: dict[str, str] = {}
    for domain, labels in _table(Path(path), what).items():
        if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
            raise InputError(f"{what}: {domain!r} is no list of labels", _FORM)
        # "none" is what requests without a domain carry; a domain of that name would join them.
        if domain in ("", NO_DOMAIN):
            raise InputError(f"{what}: a domain cannot be named {domain!r}")
        for label in labels:
            if label in by_label:
                raise InputError(
                    f"{what}: {label!r} is listed twice, under {by_label[label]!r} and {domain!r}",
                    "keep it in one domain.",
                )
            by_label[label] = domain
    if not by_label:
        raise InputError(f"{what} lists no labels", _FORM)
    return by_label


def _table(path: Path, what: str) -> dict[str, Any]:
    """Domain -> labels, not checked."""
    try:
        raw = tomllib.loads(path.read_text("utf-8-sig"))
    except OSError as error:
        raise InputError(f"cannot read {what}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{what} is not TOML: {error}", _FORM) from error
    if not isinstance(raw.get("domains"), dict):
        return raw
    if len(raw) > 1:
        raise InputError(f"{what} names domains inside and outside of [domains]", _FORM)
    table: dict[str, Any] = raw["domains"]
    return table
