"""The tokens that all prompts of a run share, such as a chat template's, and sums without them."""

from collections.abc import Mapping

import duckdb

from tracer.analysis.measures.inputs import Asked, make_inputs
from tracer.analysis.sql import query_text

__all__ = ["leave_out_template"]


def leave_out_template(
    con: duckdb.DuckDBPyConnection, run: Mapping[str, object]
) -> tuple[int, int]:
    """Let `usage` be without the tokens that begin and end all prompts, from now on.

    It is summed again from `routing`. Tables and views of the lake stay as they are.

    Args:
        con: from ``connect``.
        run: its row of `runs`.

    Returns:
        How many tokens begin, and how many end, the prompts of all requests.

    Raises:
        InputError: the run has no complete request.
    """
    make_inputs(con, (), Asked(run, "all", {}, exclude_template=True))
    text = query_text("scope/usage_without_template")
    # A temporary table goes before the view of the lake.
    con.execute(f"create or replace temp table usage as\n{text}")
    row = con.sql("select template_prefix, template_suffix from asked").fetchall()[0]
    return int(row[0]), int(row[1])
