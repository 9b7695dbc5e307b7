"""Views over a lake's files, the closed connection, and named queries."""

from collections import defaultdict
from pathlib import Path

import duckdb
import polars as pl
import pytest

from tracer.analysis.sql import connect, query_names, query_text, run_query, run_sql
from tracer.analysis.views import views_of
from tracer.errors import InputError, QueryError
from tracer.schema import TABLES, arrow_schema, query_path

HOSTILE = "a'; drop view runs; --\"x"


@pytest.fixture
def lake(make_lake, request_of):
    """Two requests in one layer, k = 2; q2 also generates one token.

    law, q1: tokens {7: .75, 2: .25}, {2: .5, 5: .5}.
    HOSTILE, q2: {7: 1, 1: 0}, then {3: .5, 4: .25}.
    """
    return make_lake(
        [
            request_of("q1", "law", [{3: {7: 0.75, 2: 0.25}}, {3: {2: 0.5, 5: 0.5}}]),
            request_of("q2", HOSTILE, [{3: {7: 1.0, 1: 0.0}}], [{3: {3: 0.5, 4: 0.25}}]),
        ]
    )


@pytest.fixture
def con(lake):
    return connect(lake)


def test_views_are_the_tables_and_choices(lake):
    assert list(views_of(lake).statements) == [*TABLES, "choices"]


def test_eci_counts_tokens_that_did_not_choose_the_expert(con):
    """Law has 2 tokens: expert 2 gets (.25 + .5) / 2, 7 gets .75 / 2, 5 gets .5 / 2.

    The other domain has one: 7 gets 1, and 1, chosen with weight 0, gets 0."""
    found = run_query(con, "eci", run_id="r1", tokens="prompt")
    assert found.columns == [
        "layer_id",
        "domain",
        "expert_id",
        "num_choices",
        "num_tokens",
        "eci",
    ]
    assert found.rows() == [
        (3, HOSTILE, 7, 1, 1, 1.0),
        (3, HOSTILE, 1, 1, 1, 0.0),
        (3, "law", 2, 2, 2, 0.375),
        (3, "law", 7, 1, 2, 0.375),
        (3, "law", 5, 1, 2, 0.25),
    ]


def test_eci_of_all_tokens_adds_prompt_and_generated(con):
    """The other domain has one prompt and one generated token: 1/2, .5/2, .25/2, 0."""
    found = run_query(con, "eci", run_id="r1", tokens="all")
    rows = [(row[2], row[5]) for row in found.rows() if row[1] == HOSTILE]
    assert rows == [(7, 0.5), (3, 0.25), (4, 0.125), (1, 0.0)]
    assert {row[4] for row in found.rows()} == {2}


@pytest.mark.parametrize("tokens", ["last-prompt", "prompt", "generated", "all"])
def test_eci_is_the_same_from_domains_requests_and_choices(make_lake, request_of, tokens):
    """40 requests of 1 to 4 prompt and 0 to 3 generated tokens, 3 layers, k = 3 of 12."""
    import numpy as np

    rng = np.random.default_rng(7)

    def token():
        return {
            layer: dict(zip(rng.permutation(12)[:3].tolist(), rng.random(3).tolist(), strict=True))
            for layer in (1, 2, 5)
        }

    requests = [
        request_of(
            f"q{i}",
            f"d{i % 3}",
            [token() for _ in range(rng.integers(1, 5))],
            [token() for _ in range(rng.integers(0, 4))],
        )
        for i in range(40)
    ]
    con = connect(make_lake(requests, num_experts=12, top_k=3))
    frames = [
        run_query(con, "eci", run_id="r1", tokens=tokens),
        run_query(con, "eci_by_request", run_id="r1", tokens=tokens, domains="{}"),
        run_query(con, "eci_from_choices", run_id="r1", tokens=tokens),
    ]
    found = [{row[:3]: row[3:] for row in frame.rows()} for frame in frames]
    assert len(found[0]) > 80
    for other in found[1:]:
        assert other.keys() == found[0].keys()
        for key, (num_choices, num_tokens, eci) in found[0].items():
            assert other[key][:2] == (num_choices, num_tokens)
            assert other[key][2] == pytest.approx(eci, abs=1e-9)


def test_choices_has_one_row_per_choice_ranked_by_weight(con):
    rows = run_sql(con, "from choices order by request_id, position, layer_id, rank").rows()
    assert rows[:4] == [
        ("r1", "q1", "law", "prompt", 0, 3, 1, 7, 0.75),
        ("r1", "q1", "law", "prompt", 0, 3, 2, 2, 0.25),
        ("r1", "q1", "law", "prompt", 1, 3, 1, 2, 0.5),
        ("r1", "q1", "law", "prompt", 1, 3, 2, 5, 0.5),
    ]
    assert len(rows) == 8
    types = run_sql(con, "select column_name, column_type from (describe choices)").rows()
    assert types[4:] == [
        ("position", "INTEGER"),
        ("layer_id", "SMALLINT"),
        ("rank", "INTEGER"),
        ("expert_id", "SMALLINT"),
        ("gate_weight", "FLOAT"),
    ]


def test_reference_weights_follow_the_authors_formula(make_lake, request_of):
    """What the authors' code gives for N = 4: expert 0, always .5, scores 0.

    Expert 1 (.3, 0, .4, 0) scores (.7 / 4) / .400001 * 2/4 = .2187; experts 2 and 3, once with .2,
    .25 * .25 = .0625."""
    weights = [{0: 0.5, 1: 0.3}, {0: 0.5, 2: 0.2}, {0: 0.5, 1: 0.4}, {0: 0.5, 3: 0.2}]
    first = {0: {5: 0.9, 6: 0.1}}
    con = connect(
        make_lake([request_of(f"q{i}", "d", [first, {0: w}]) for i, w in enumerate(weights)])
    )
    for name, binds in (
        ("reference_weights", {}),
        ("reference_weights_by_request", {"domains": "{}"}),
    ):
        found = run_query(con, name, run_id="r1", **binds)
        assert [row[:5] for row in found.rows()] == [
            (0, "d", 1, 2, 4),
            (0, "d", 2, 1, 4),
            (0, "d", 3, 1, 4),
            (0, "d", 0, 4, 4),
        ]
        values = found["normalised_weight"].to_list()
        assert values == pytest.approx([0.21875, 0.0625, 0.0625, 0], abs=1e-6)
        assert values[3] == 0


def test_empty_tables_have_the_types_of_the_schema(make_lake, tmp_path):
    """Every view of an empty lake has the columns and types its files would have."""
    import pyarrow.parquet as pq

    empty = make_lake([])
    empty.table_files = {table: [] for table in TABLES}
    full = make_lake([], folder="full")
    for table in TABLES:
        path = tmp_path / f"full/{table}.parquet"
        pq.write_table(arrow_schema(table).empty_table(), path)
        full.table_files[table] = [path]
    shapes = []
    for lake in (empty, full):
        con = connect(lake)
        shapes.append({table: run_sql(con, f"describe {table}").rows() for table in TABLES})
        assert run_sql(con, "from choices").is_empty()
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("folder", ["it's", "a[b]c*d?", "{x,y}", "domain=math", "a b#%20\\"])
def test_paths_are_taken_literally(make_lake, request_of, folder):
    lake = make_lake([request_of("q1", "law", [{0: {1: 0.5, 2: 0.5}}])], folder=folder)
    con = connect(lake)
    assert run_sql(con, "select domain, request_id from requests").rows() == [("law", "q1")]
    assert run_sql(con, "from choices").height == 2


def test_timestamps_and_maps_come_through(make_lake, request_of):
    request = request_of("q1", "law", [{0: {1: 1.0, 2: 0.0}}], labels={"subject": "it's"})
    con = connect(make_lake([request]))
    assert run_sql(con, "select labels['subject'] from requests").item() == "it's"
    assert run_sql(con, "select started_at::varchar from runs").item() == "2026-01-01 00:00:00+00"
    assert run_sql(con, "select started_at from runs").schema["started_at"] == pl.Datetime(
        "us", "UTC"
    )


def test_the_connection_reads_nothing_outside_the_lake(con, tmp_path):
    secret = tmp_path / "secret.csv"
    secret.write_text("a\n1\n")
    for text in (
        f"from read_csv('{secret}')",
        f"from '{secret}'",
        "from read_text('/etc/hostname')",
        "from lake",
    ):
        with pytest.raises(QueryError):
            run_sql(con, text)
    with pytest.raises(duckdb.Error):
        con.execute("set enable_external_access = true")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "create table t (a int)",
        "drop view runs",
        "select 1; select 2",
        "set threads = 1",
        "attach 'x.db'",
    ],
)
def test_only_one_reading_statement_is_run(con, text):
    with pytest.raises(QueryError, match="single statement that reads"):
        run_sql(con, text)


def test_nothing_can_be_copied_into_the_lake(con, lake):
    with pytest.raises(QueryError, match="single statement that reads"):
        run_sql(con, f"copy (select 1) to '{lake.location}/x.parquet'")
    assert not (Path(lake.location) / "x.parquet").exists()


def test_a_refused_statement_is_told_in_one_line(con):
    with pytest.raises(QueryError) as refused:
        run_sql(con, "select nothing from rooting")
    assert str(refused.value) == "Catalog Error: Table with name rooting does not exist!"
    assert refused.value.hint == 'Did you mean "routing"?'
    with pytest.raises(QueryError, match=r"^Conversion Error: [^\n]*$"):
        run_sql(con, "select domain::int from requests")


def test_reading_statements_of_all_forms(con):
    for text in (
        "select 1;",
        "from runs",
        "with a as (select 1) from a",
        "describe runs",
        "summarize routing",
        "show tables",
        "explain select 1",
        "values (1)",
    ):
        assert run_sql(con, text).height >= 1


def test_unknown_query_lists_those_that_exist(con):
    for name in ("nope", "../pyproject", "audit/nope", "", "eci.sql"):
        with pytest.raises(InputError, match="no query") as refused:
            run_query(con, name)
        assert "eci, eci_by_request" in refused.value.hint


def test_a_missing_bind_is_a_query_error(con):
    with pytest.raises(QueryError, match="tokens"):
        run_query(con, "eci", run_id="r1")


def every_query():
    folder = query_path("any").parent
    return sorted(
        path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.sql")
    )


@pytest.mark.parametrize("name", every_query())
def test_every_query_has_a_header(name):
    """First line "-- name: meaning."; then reads, binds, yields, order; binds are those used."""
    import re

    text = query_text(name)
    comments = [line for line in text.splitlines() if line.startswith("--")]
    short = name.removeprefix("views/").removeprefix("measures/")
    assert re.match(rf"-- {short}: [^ ].*\.$", comments[0])
    words = [line[3:].split()[0] for line in comments if re.match(r"-- [a-z]+  +\S", line)]
    wanted = ["reads", "binds", "yields", "order"]
    if name.startswith("measures/"):
        wanted = ["asks", "reads", "binds", "yields", "key", "values", "null", "order"]
    assert [w for w in words if w not in ("source", "parts", "behind", "jumps")] == wanted
    body = "\n".join(line for line in text.splitlines() if not line.startswith("--"))
    assert set(re.findall(r"\$\w+", body)) == set(re.findall(r"\$\w+", "\n".join(comments)))
    assert max(map(len, text.splitlines())) <= 100


def test_query_names_are_the_files_of_the_folder():
    assert query_names() == [name for name in every_query() if "/" not in name]
    grouped = defaultdict(list)
    for name in every_query():
        grouped[name.rpartition("/")[0]].append(name)
    folders = {"audit", "inputs", "inputs/spark", "measures", "parts", "scope"}
    folders |= {"verify", "views"}
    assert set(grouped) == {"", *folders}
