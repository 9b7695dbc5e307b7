"""Writes the table of docs/architectures.md from the results in docs/architectures.json.

The results come from ``tests/engine/test_engine_architectures.py`` with TRACER_ARCHITECTURES set
to that file.
"""

import json
from pathlib import Path
from typing import Any

PAGE = Path(__file__).with_name("architectures.md")
RESULTS = Path(__file__).with_name("architectures.json")
BEGIN, END = "<!-- table: made by docs/write_architectures.py -->", "<!-- end of table -->"


def weight_in_words(row: dict[str, Any]) -> str:
    """What a captured weight is, from the columns of `runs`."""
    words = [row["scoring_function"].replace("_", " ")]
    if row["renormalised"]:
        words.append("renormalised")
    if row["routed_scaling_factor"] != 1.0:
        words.append("times the factor" if row["weight_convention"] == "scaled" else "factor apart")
    return ", ".join(words)


def table() -> str:
    """One line per architecture."""
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    engines = sorted({row["engine"] for row in results.values()})
    lines = [
        f"Engine: {', '.join(engines)}. Shares are of (token, layer) pairs.",
        "",
        "| architecture | gate weight | equal ids | weights within | end to end | remarks |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in results.items():
        exact, total = row["agreed"], row["compared"]
        lines.append(
            f"| {name} | {weight_in_words(row)} | {exact / total:.1%} of {total:,}"
            f" | {row['largest_difference']:.0e} | {row['agreed_end_to_end'] / total:.1%}"
            f" | {row['note']} |"
        )
    return "\n".join(lines)


def page_with_table(text: str) -> str:
    """``text`` with everything between the two markers made anew."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n\n{table()}\n\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(page_with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
