"""Run to HTML report: every audit the run has tokens for, on one page."""

from collections.abc import Mapping
from pathlib import Path

from tracer import __version__
from tracer.analysis.audit import MissingTokensError, audit
from tracer.errors import InputError
from tracer.files import write_whole
from tracer.records import Audit
from tracer.report.html import render_report
from tracer.store.lake import Lake

__all__ = ["write_report"]

# What a reader wants first stands first. A run may lack tokens for some.
_AUDITS = (("gate", "prompt"), ("gate", "generated"), ("reference", "last-prompt"))


def write_report(
    lake: Lake,
    run_id: str | None,
    output: Path,
    *,
    min_presence: float = 0.8,
    domains: Mapping[str, str] | None = None,
    allow_missing_tokens: bool = False,
) -> Path:
    """Write the report of a run to ``output``, whole or not at all.

    Args:
        lake: the lake to read.
        run_id: the run; None takes the only one.
        output: the file to write.
        min_presence: least share of domains that must list a candidate, over 0 and at most 1.
        domains: new domain by old domain or subject.
        allow_missing_tokens: audit the prompt tokens that have rows where others have none; the
            page says how many.

    Raises:
        UnknownRunError: no such run.
        InputError: nothing to audit, prompt tokens without rows that are not allowed, or the file
            cannot be written.
    """
    run = lake.run(run_id)
    audits: list[Audit] = []
    refusal: InputError | None = None
    for mode, tokens in _AUDITS:
        try:
            audits.append(
                audit(
                    lake,
                    run_id=run["run_id"],
                    mode=mode,
                    tokens=tokens,
                    min_presence=min_presence,
                    domains=domains,
                    allow_missing_tokens=allow_missing_tokens,
                )
            )
        except MissingTokensError as error:
            raise InputError(
                str(error), "--allow-missing-tokens reports on the prompt tokens that have rows."
            ) from error
        except InputError as error:
            refusal = refusal or error
    if not audits and refusal is not None:
        raise refusal
    page = render_report(audits, run=run, tracer_version=__version__)
    return write_whole(output, page.encode())
