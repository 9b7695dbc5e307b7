"""Writes the catalogue in docs/queries.md from the headers in queries/ (`make docs`)."""

from itertools import groupby
from pathlib import Path

import polars as pl

from tracer.analysis.measures.catalogue import Measure, measure_named, measure_names
from tracer.analysis.measures.engines import Points, relations_of, with_literals
from tracer.analysis.measures.inputs import OTHER, tables_of
from tracer.analysis.measures.nulls import null_words
from tracer.analysis.measures.polars_engine import take
from tracer.errors import InputError
from tracer.schema import query_path

PAGE = Path(__file__).with_name("queries.md")
BEGIN, END = "<!-- catalogue: made by `make docs` from queries/ -->", "<!-- end of catalogue -->"

# What a measure reads names its group: the first of these that it has.
GROUPS = {
    "other_": "Two runs",
    "cosine_entries": "Router matrices (recorded with `--router-weights`)",
    "candidate_usage": "Candidates beyond top-k (recorded with `--top-m`)",
    "expert_logits": "Router logits (recorded with `--router-logits`)",
    "logit_entries": "Router logits (recorded with `--router-logits`)",
    "scoped_tokens": "Token ids",
    "routed_tokens": "Choices of every token",
    "expert_pairs": "Choices of every token",
    "expert_choices": "Choices of every token",
    "budget_usage": "Choices of every token",
    "": "Sums of choices per request",
}


def group_of(measure: Measure) -> str:
    """The heading that the measure stands under."""
    return next(
        title
        for start, title in GROUPS.items()
        if any(name.startswith(start) for name in measure.reads)
    )


def sentence(text: str) -> str:
    """With a capital letter and a full stop."""
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


def measure_section(measure: Measure) -> list[str]:
    """Lines about one measure."""
    command = f"tracer query {measure.name}"
    if measure.compares:
        command += " --run ONE --other-run ANOTHER"
    lines = [f"#### {measure.name}", "", f"**{measure.asks}** {sentence(measure.meaning)}", ""]
    if measure.doc:
        lines += [measure.doc, ""]
    lines += ["```sh", command, "```", "", "| column | unit |", "|---|---|"]
    lines += [f"| `{column.name}` | {column.unit} |" for column in measure.columns]
    lines += [
        "",
        *(
            f"- `--{b.name.replace('_', '-')}` (default {b.default}): {sentence(b.doc)}"
            for b in measure.binds
        ),
    ]
    if measure.values:
        lines.append(f"- Intervals for {_quoted(measure.values)}{_plain(measure)}.")
    lines.append(
        f"- Chance: `{measure.null}`."
        if measure.null
        else f"- No chance level: {sentence(measure.no_null)}"
    )
    if measure.source:
        lines.append(f"- Source: {sentence(measure.source)}")
    lines += [f"- Reads {', '.join(f'`{name}`' for name in measure.reads)}.", ""]
    return lines


def _quoted(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _plain(measure: Measure) -> str:
    """Which of its intervals are percentiles as they are."""
    if not measure.jumps:
        return ""
    some = "" if measure.jumps == measure.values else f" for {_quoted(measure.jumps)}"
    return f"; plain percentiles{some}"


def polars_runs(measure: Measure) -> bool:
    """Whether Polars runs the measure, tried on relations without rows."""
    asked = {"run_id": "r", "num_experts": 2, "top_k": 1, "moe_layers": [0], "tokens": "all"}
    asked |= {"renormalised": False, "template_prefix": 0, "template_suffix": 0}
    names = {"request_id": "", "origin": "", "domain": "", "num_prompt_tokens": 0}
    frames = {}
    for prefix in ("", OTHER):
        frames[f"{prefix}asked"] = pl.DataFrame([asked])
        frames[f"{prefix}scoped_requests"] = pl.DataFrame([names]).clear()
    text = with_literals(measure.sql, measure.bound({}))
    tables = dict.fromkeys(tables_of(measure.reads), ())
    try:
        take(measure.name, Points(tables, frames, relations_of(measure, frames), text))
    except InputError:
        return False
    return True


def polars_line(measures: list[Measure]) -> str:
    """Which measures Polars' SQL cannot run."""
    refused = [measure.name for measure in measures if not polars_runs(measure)]
    names = ", ".join(f"`{name}`" for name in refused)
    return f"Polars' SQL cannot run {names}." if refused else "Polars' SQL runs every measure."


def relation_lines() -> list[str]:
    """A table of the relations that measures read."""
    lines = ["| relation | one row is | columns |", "|---|---|---|"]
    for path in sorted(query_path("inputs/any").parent.glob("*.sql")):
        header = path.read_text(encoding="utf-8").split("\nselect")[0].splitlines()
        words = [line.removeprefix("--").strip() for line in header if line.startswith("--")]
        meaning = words[0].partition(": ")[2]
        first = next(n for n, line in enumerate(words) if line.startswith("yields"))
        last = next(n for n, line in enumerate(words) if line.startswith("order"))
        columns = " ".join(words[first:last]).removeprefix("yields").strip()
        lines.append(f"| `{path.stem}` | {meaning.rstrip('.')} | {columns} |")
    return lines


def catalogue() -> str:
    """Markdown of all relations, nulls and measures."""
    measures = sorted(map(measure_named, measure_names()), key=lambda m: m.name)
    titles = list(dict.fromkeys(GROUPS.values()))[::-1]
    measures.sort(key=lambda m: titles.index(group_of(m)))
    lines = ["### Chance levels", "", "| null | what a draw does |", "|---|---|"]
    lines += [f"| `{name}` | {words} |" for name, words in null_words().items()]
    lines += ["", "### Relations", "", *relation_lines(), ""]
    lines += [polars_line(measures), ""]
    for title, some in groupby(measures, key=group_of):
        lines += [f"### {title}", ""]
        for measure in some:
            lines += measure_section(measure)
    return "\n".join(lines).rstrip()


def page_with_catalogue(text: str) -> str:
    """``text`` with everything between the two markers made anew."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n\n{catalogue()}\n\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(page_with_catalogue(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
