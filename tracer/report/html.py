"""Audits of one run -> one HTML document that opens from a file, offline.

The page carries its style, script and data. Its content security policy admits exactly that
style and that script, by digest, and nothing from outside; every value is escaped on its way
in. The same input gives the same bytes: no clock, no random id.
"""

import base64
import functools
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from tracer.errors import InputError
from tracer.records import Audit
from tracer.report import words
from tracer.report.chart import Table
from tracer.report.drift import drift_section
from tracer.report.palette import NUM_STEPS, STOPS, line_css, scale_css, step
from tracer.report.panel import panel, roles_section

__all__ = ["render_report"]

_FOLDER = Path(__file__).parent / "page"
_SCRIPTS = ("data.js", "grid.js", "figures.js", "report.js")


def render_report(
    audits: Sequence[Audit],
    *,
    run: Mapping[str, object],
    tracer_version: str,
    others: Mapping[tuple[str, str], Audit] | None = None,
    same_model: bool = False,
    token_roles: Table | None = None,
    drift: Mapping[str, Any] | None = None,
) -> str:
    """One self-contained HTML page on a run's audits.

    Args:
        audits: at least one, all of the same run, each becomes a tab in this order
        run: the run's row of the table ``runs``; absent and None values are not shown
        tracer_version: printed at the foot of the page
        others: audits of a run to compare with, by mode and token scope
        same_model: that run is of the same model, so expert ids mean the same
        token_roles: tokens by layer and expert, as ``read_token_roles`` gives them
        drift: the run held to limits against an earlier one, as ``drift_section`` reads it
    """
    if not audits:
        raise InputError("a report needs at least one audit", "`tracer audit` makes one.")
    run_ids = sorted({audit.run_id for audit in audits})
    if len(run_ids) > 1:
        raise InputError(
            f"a report is about one run; these audits are of {len(run_ids)}: {', '.join(run_ids)}",
            "write one report per run.",
        )
    style = scale_css() + line_css() + _asset("report.css")
    script = '"use strict";\n(() => {\n' + "\n".join(map(_asset, _SCRIPTS)) + "})();\n"
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            policy=_policy(style, script),
            style=style,
            script=script,
            palette=STOPS,
            num_steps=NUM_STEPS,
            first=audits[0],
            facts=words.run_facts(audits[0], run),
            panels=[
                panel(
                    audit,
                    number,
                    other=(others or {}).get((audit.mode, audit.tokens)),
                    same_model=same_model,
                )
                for number, audit in enumerate(audits, start=1)
            ],
            roles=roles_section(token_roles, audits[0]) if token_roles else None,
            drift=drift_section(drift) if drift else None,
            modes=words.MODES,
            scopes=words.SCOPES,
            tracer_version=tracer_version,
        )
    )


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.policies["json.dumps_kwargs"] = {
        "sort_keys": True,
        "separators": (",", ":"),
        "allow_nan": False,
    }
    environment.filters |= {
        "fixed": words.fixed,
        "percent": words.percent,
        "count": words.count,
        "plural": words.plural,
        "ranges": words.ranges,
        "sort_key": words.sort_key,
        "step": step,
    }
    return environment


def _asset(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")


def _policy(style: str, script: str) -> str:
    """Content security policy: this style, this script, nothing else."""
    return (
        f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}';"
        " base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"sha256-{base64.b64encode(digest).decode('ascii')}"
