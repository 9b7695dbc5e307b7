"""Domains other than those of the capture: a TOML file that says which labels form a domain.

    [domains]
    "STEM-Math" = ["abstract_algebra", "college_mathematics"]
    "Humanities" = ["philosophy"]

A request is looked up by its label `subject` first, then by its domain; one that matches nothing
keeps its domain.
"""

import tomllib
from pathlib import Path

from tracer.errors import InputError

__all__ = ["load_domains"]

_FORM = 'write a table [domains] with lines like "STEM" = ["physics", "chemistry"].'


def load_domains(path: Path | str) -> dict[str, str]:
    """New domain by old domain or subject.

    Raises:
        InputError: the file cannot be read, has another form, or gives a label two domains.
    """
    try:
        raw = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not TOML: {error}", _FORM) from error
    table = raw.get("domains")
    if not isinstance(table, dict) or not table:
        raise InputError(f"{path} names no domains", _FORM)
    domains: dict[str, str] = {}
    for domain, labels in table.items():
        if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
            raise InputError(f"{path}: domain {domain!r} is not a list of labels", _FORM)
        for label in labels:
            if domains.setdefault(label, domain) != domain:
                raise InputError(
                    f"{path}: {label!r} belongs to both {domains[label]!r} and {domain!r}",
                    "list every label once.",
                )
    return domains
