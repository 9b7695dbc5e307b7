"""Run to HTML report and figures: every audit the run has tokens for."""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tracer import __version__
from tracer.analysis.audit import MissingTokensError, audit
from tracer.errors import InputError
from tracer.files import check_output, whole_folder, write_whole
from tracer.records import Audit, audit_draws
from tracer.report.figure_files import FIGURE_NAMES, figure_files
from tracer.report.html import render_report
from tracer.report.png import check_png, svg_to_png
from tracer.report.token_roles import read_token_roles
from tracer.store.lake import Lake

__all__ = ["write_report"]

# What a reader wants first stands first. A run may lack tokens for some.
_AUDITS = (("gate", "prompt"), ("gate", "generated"), ("reference", "last-prompt"))
# What makes two runs' expert ids mean the same.
_SAME_MODEL = ("model", "model_revision", "architecture")


def write_report(
    lake: Lake,
    run_id: str | None,
    output: Path,
    *,
    min_presence: float = 0.8,
    domains: Mapping[str, str] | None = None,
    allow_missing_tokens: bool = False,
    compare: str | None = None,
    drift: Mapping[str, Any] | None = None,
    figures: Path | None = None,
    png: bool = True,
    token_roles: Path | None = None,
    draws: int | None = None,
    seed: int = 0,
    progress: Callable[[str], None] = lambda _name: None,
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
        compare: another run of the lake, shown beside this one.
        drift: what holding this run to limits against that one found, ``Drift.to_dict``.
        figures: folder for the figures as files, whole or not at all; an older one that holds
            figures only is replaced.
        png: make PNG files of the figures beside the SVG files.
        token_roles: file with tokens by layer and expert, as ``read_token_roles`` reads it.
        draws: of chance and of requests, for intervals, bands and verdicts; None takes as many as
            an audit does, 0 makes none. The run compared with has none.
        seed: of all draws.
        progress: told each layer whose draws are made.

    Raises:
        UnknownRunError: no such run.
        InputError: nothing to audit, prompt tokens without rows that are not allowed, a run
            compared with itself, or an output that cannot be written.
        MissingLibraryError: PNG files are asked for, and their library is not installed.
    """
    if figures is not None:
        check_output(figures, force=True, names=FIGURE_NAMES, option="--figures")
        if png:
            check_png()
    roles = None if token_roles is None else read_token_roles(token_roles)
    run = lake.run(run_id)
    other = None if compare is None else lake.run(compare)
    if other is not None and other["run_id"] == run["run_id"]:
        raise InputError(
            f"run {compare!r} cannot be compared with itself", "name another with --compare."
        )
    audits_of = functools.partial(
        _audits,
        lake,
        min_presence=min_presence,
        domains=domains,
        allow_missing_tokens=allow_missing_tokens,
    )
    audits = audits_of(str(run["run_id"]), draws=draws, seed=seed, progress=progress)
    others: dict[tuple[str, str], Audit] = {}
    if other is not None:
        found = audits_of(str(other["run_id"]), draws=0)
        others = {(one.mode, one.tokens): one for one in found}
    page = render_report(
        audits,
        run=run,
        tracer_version=__version__,
        others=others,
        same_model=other is not None and _same_model(run, other),
        token_roles=roles,
        drift=drift,
    )
    if figures is not None:
        _write_figures(figures, figure_files(audits, others), png=png)
    return write_whole(output, page.encode())


def _audits(
    lake: Lake,
    run_id: str,
    *,
    min_presence: float,
    domains: Mapping[str, str] | None,
    allow_missing_tokens: bool,
    draws: int | None,
    seed: int = 0,
    progress: Callable[[str], None] = lambda _name: None,
) -> list[Audit]:
    """Every audit the run has tokens for; the first refusal where there is none."""
    audits: list[Audit] = []
    refusal: InputError | None = None
    for mode, tokens in _AUDITS:
        try:
            audits.append(
                audit(
                    lake,
                    run_id=run_id,
                    mode=mode,
                    tokens=tokens,
                    min_presence=min_presence,
                    domains=domains,
                    allow_missing_tokens=allow_missing_tokens,
                    draws=audit_draws(mode) if draws is None or mode == "reference" else draws,
                    seed=seed,
                    progress=progress,
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
    return audits


def _same_model(run: Mapping[str, object], other: Mapping[str, object]) -> bool:
    """Whether expert ids mean the same; a revision nobody recorded cannot differ."""
    return all(
        run.get(key) == other.get(key) or run.get(key) is None or other.get(key) is None
        for key in _SAME_MODEL
    )


def _write_figures(folder: Path, drawings: Mapping[str, str], *, png: bool) -> None:
    with whole_folder(folder, force=True, names=FIGURE_NAMES, option="--figures") as hidden:
        for name, svg in drawings.items():
            (hidden / f"{name}.svg").write_text(svg, encoding="utf-8")
            if png:
                (hidden / f"{name}.png").write_bytes(svg_to_png(svg))
