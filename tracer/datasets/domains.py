"""The map from MMLU subjects to domains: the bundled one, or the user's."""

import tomllib
from pathlib import Path

from tracer.errors import InputError
from tracer.records import NO_DOMAIN

__all__ = ["BUNDLED_MAP", "read_domain_map"]

BUNDLED_MAP = Path(__file__).with_name("mmlu_domains.toml")

_HINT = "write one line per domain: Name = ['subject', ...]."


def read_domain_map(path: Path) -> dict[str, str]:
    """Read a TOML file of domain -> subjects and return subject -> domain.

    Raises:
        InputError: unreadable, not of that form, or a subject listed twice.
    """
    try:
        domains = tomllib.loads(path.read_text("utf-8-sig"))
    except OSError as error:
        raise InputError(f"cannot read the domain map {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"the domain map {path} is not TOML: {error}", _HINT) from error
    by_subject: dict[str, str] = {}
    for domain, subjects in domains.items():
        if not isinstance(subjects, list) or not all(isinstance(name, str) for name in subjects):
            raise InputError(f"the domain map {path}: {domain!r} is no list of subjects", _HINT)
        # "none" is what rows without a domain carry; a domain of that name would join them.
        if domain in ("", NO_DOMAIN):
            raise InputError(f"the domain map {path}: a domain cannot be named {domain!r}")
        for subject in subjects:
            if subject in by_subject:
                raise InputError(
                    f"the domain map {path}: subject {subject!r} is listed twice,"
                    f" under {by_subject[subject]!r} and {domain!r}",
                    "keep it in one domain.",
                )
            by_subject[subject] = domain
    if not by_subject:
        raise InputError(f"the domain map {path} lists no subjects", _HINT)
    return by_subject
