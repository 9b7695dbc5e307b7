"""Run to HTML report: every audit the run has tokens for, on one page."""

from collections.abc import Mapping
from pathlib import Path

from tracer import __version__
from tracer.analysis.audit import audit
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
) -> Path:
    """Write the report of a run to ``output``, whole or not at all.

    Raises:
        UnknownRunError: no such run.
        InputError: nothing to audit, or the file cannot be written.
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
                )
            )
        except InputError as error:
            refusal = refusal or error
    if not audits and refusal is not None:
        raise refusal
    page = render_report(audits, run=run, tracer_version=__version__)
    return write_whole(output, page.encode())
