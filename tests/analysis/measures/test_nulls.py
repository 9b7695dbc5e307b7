"""What each random draw keeps and what it breaks, on relations of a small run."""

import numpy as np
import polars as pl
import pytest

from tests.analysis.measures.conftest import LAYERS, NUM_EXPERTS, TOP_K
from tracer.analysis.measures.inputs import OTHER, Asked, frame_of, make_inputs
from tracer.analysis.measures.nulls import NULLS, _swapped
from tracer.analysis.measures.redraw import Redraw, drawn_requests
from tracer.analysis.sql import connect

READS = (
    "expert_usage",
    "expert_choices",
    "budget_usage",
    "candidate_usage",
    "scoped_tokens",
    "experts",
    "model",
)
SUMS = ("usage_entries", "budget_entries", "candidate_entries")
BASE = ("scoped_requests", "routing_entries", "token_entries", *SUMS)


@pytest.fixture
def con(made):
    lake, _ = made
    con = connect(lake, "r1")
    make_inputs(con, READS, Asked(lake.run("r1"), "all", {}), keep=True)
    yield con
    con.close()


@pytest.fixture
def drawn(con):
    """Draws a null once; returns its relations before and after."""

    def draw(null, seed=5):
        before = {name: frame_of(con, name) for name in BASE}
        redraw = Redraw(con)
        null(redraw, np.random.default_rng(seed))
        after = {name: frame_of(con, name) for name in BASE}
        redraw.restore()
        assert all(frame_of(con, name).equals(before[name]) for name in BASE)
        return before, after

    return draw


def same(before, after, *changed):
    return all(before[name].equals(after[name]) for name in BASE if name not in changed)


def matrix(frame):
    return frame["expert_ids"].explode().to_numpy().reshape(frame.height, -1)


def test_a_draw_is_the_same_for_the_same_seed(drawn):
    for name in ("labels", "experts", "uniform", "swaps", "order", "token_ids"):
        one, two, other = (drawn(NULLS[name], seed)[1] for seed in (1, 1, 2))
        assert all(one[relation].equals(two[relation]) for relation in BASE)
        assert not all(one[relation].equals(other[relation]) for relation in BASE)


def test_labels_are_exchanged_between_requests(drawn):
    before, after = drawn(NULLS["labels"])
    assert same(before, after, "scoped_requests")
    one, two = before["scoped_requests"], after["scoped_requests"]
    assert one.drop("domain").equals(two.drop("domain"))
    assert sorted(one["domain"]) == sorted(two["domain"])
    assert one["domain"].to_list() != two["domain"].to_list()


def test_experts_are_renamed_alike_within_a_domain_and_layer(drawn):
    """Each (domain, layer) has one renaming, which is one to one; two of them differ."""
    before, after = drawn(NULLS["experts"])
    assert same(before, after, "routing_entries", *SUMS)
    domain = before["scoped_requests"].select("origin", "domain")
    # Sums tell which old entry became which new one: weights of a cell are all different.
    keys = ["origin", "layer_id", "num_choices", "weight_sum"]
    pairs = (
        before["usage_entries"]
        .join(after["usage_entries"], on=keys)
        .join(domain, on="origin")
        .group_by("domain", "layer_id", "expert_id")
        .agg(pl.col("expert_id_right").unique())
    )
    assert pairs["expert_id_right"].list.len().unique().to_list() == [1]
    named = pairs.with_columns(pl.col("expert_id_right").list.first())
    for _, part in named.group_by("domain", "layer_id"):
        assert part["expert_id_right"].n_unique() == part.height
    wide = named.filter(expert_id=0).group_by("layer_id").agg("expert_id_right")
    assert max(wide["expert_id_right"].list.n_unique()) > 1


def test_experts_of_rows_and_sums_are_renamed_alike(con):
    """Choices counted from rows are those of the sums after the renaming, too."""
    redraw = Redraw(con)
    NULLS["experts"](redraw, np.random.default_rng(3))
    count = "select origin, layer_id, expert_id, count(*)::bigint as num_choices"
    rows = con.sql(f"{count} from expert_choices group by all").pl()
    columns = "select origin, layer_id, expert_id, num_choices"
    for name in (
        "usage_entries",
        "budget_entries where budget = 2",
        "candidate_entries where budget = 2",
    ):
        sums = con.sql(f"{columns} from {name}").pl()
        assert rows.sort(rows.columns).equals(sums.sort(sums.columns)), name


def test_uniform_choices_are_k_of_all_for_as_many_tokens(drawn):
    before, after = drawn(NULLS["uniform"])
    assert same(before, after, "usage_entries", "routing_entries")
    for frames in (before, after):
        ids = matrix(frames["routing_entries"])
        assert all(len(set(row)) == TOP_K for row in ids.tolist())
    tokens = [
        frames["usage_entries"].group_by("origin", "layer_id").agg(pl.col("num_choices").sum())
        for frames in (before, after)
    ]
    assert tokens[0].sort("origin", "layer_id").equals(tokens[1].sort("origin", "layer_id"))
    assert after["usage_entries"].filter(expert_id=7).height > 0  # never chosen in truth


def test_uniform_choices_are_even(con):
    """600 draws of one token's 2 of 8: each expert in a quarter of them, each pair in 1/28."""
    from tracer.analysis.measures.nulls import _random_choices

    ids = _random_choices(np.random.default_rng(0), 56_000, NUM_EXPERTS, TOP_K)
    counts = np.bincount(ids.ravel(), minlength=NUM_EXPERTS)
    np.testing.assert_allclose(counts, 14_000, rtol=0.03)
    pairs = np.bincount(np.sort(ids).dot([NUM_EXPERTS, 1]), minlength=64)
    assert np.count_nonzero(pairs) == 28
    np.testing.assert_allclose(pairs[pairs > 0], 2000, rtol=0.12)


def test_swaps_keep_loads_and_sizes(drawn):
    before, after = drawn(NULLS["swaps"])
    assert same(before, after, "routing_entries")
    one, two = before["routing_entries"], after["routing_entries"]
    assert one.drop("expert_ids").equals(two.drop("expert_ids"))
    for layer in LAYERS:
        loads = [
            np.bincount(matrix(frame.filter(layer_id=layer)).ravel(), minlength=8)
            for frame in (one, two)
        ]
        assert loads[0].tolist() == loads[1].tolist()
    assert all(len(set(row)) == TOP_K for row in matrix(two).tolist())


def test_swaps_make_pairs_chance():
    """Experts always chosen as (0, 1), (2, 3), (4, 5), (6, 7): any partner becomes as likely.

    Of 4,000 tokens 1,000 hold expert 0; its 7 partners come to 1,000 / 7 each."""
    ids = np.repeat([[0, 1], [2, 3], [4, 5], [6, 7]], 1000, axis=0)
    found = _swapped(ids, np.random.default_rng(2))
    partners = found[(found == 0).any(axis=1)].ravel()
    counts = np.bincount(partners, minlength=8)[1:]
    assert counts.sum() == 1000
    assert counts.min() > 95
    assert counts.max() < 195


def test_order_moves_choices_within_request_and_phase(drawn):
    before, after = drawn(NULLS["order"])
    assert same(before, after, "routing_entries")
    keys = ["origin", "phase", "layer_id"]
    for column in ("position", "expert_ids"):
        sets = [
            frames["routing_entries"].group_by(keys).agg(pl.col(column).sort()).sort(keys)
            for frames in (before, after)
        ]
        assert sets[0].equals(sets[1])
    moved = before["routing_entries"].join(
        after["routing_entries"], on=["origin", "phase", "layer_id", "gate_weights"]
    )
    steps = moved.group_by("origin", "phase", "position").agg(pl.col("position_right").n_unique())
    assert steps["position_right"].max() == 1  # alike in all layers


def test_token_ids_are_exchanged(drawn):
    before, after = drawn(NULLS["token_ids"])
    assert same(before, after, "token_entries")
    one, two = before["token_entries"], after["token_entries"]
    assert one.drop("token_id").equals(two.drop("token_id"))
    groups = ["origin", "phase"]
    sets = [frame.group_by(groups).agg(pl.col("token_id").sort()) for frame in (one, two)]
    assert sets[0].sort(groups).equals(sets[1].sort(groups))  # a request keeps its words
    assert not one.equals(two)


def test_requests_are_drawn_within_their_domain(drawn):
    before, after = drawn(drawn_requests)
    assert same(before, after, "scoped_requests")
    one, two = before["scoped_requests"], after["scoped_requests"]
    assert two["request_id"].n_unique() == two.height
    assert sorted(one["domain"]) == sorted(two["domain"])
    domain = dict(one.select("origin", "domain").iter_rows())
    assert all(domain[origin] == name for origin, name in two.select("origin", "domain").rows())
    assert two["origin"].n_unique() < two.height


def test_copies_of_a_request_count_twice(con):
    """Choices of drawn requests are those of their origins, as often as they were drawn."""
    redraw = Redraw(con)
    recorded = redraw.recorded("usage_entries")
    drawn_requests(redraw, np.random.default_rng(1))
    copies = frame_of(con, "scoped_requests").group_by("origin").len("copies")
    wanted = recorded.join(copies, on="origin").select(pl.col("num_choices") * pl.col("copies"))
    found = con.sql("select sum(num_choices)::bigint from expert_usage").fetchall()[0][0]
    assert found == wanted.to_series().sum()
    assert con.sql("from expert_choices").pl().height == found


@pytest.fixture
def two_runs(make_lake, together):
    from tests.analysis.measures.conftest import made_requests

    lakes = [
        make_lake(made_requests(seed, planted=True), num_experts=8, run_id=run_id, top_m=4)
        for seed, run_id in ((3, "r1"), (4, "r2"))
    ]
    lake = together(*lakes)
    con = connect(lake)
    for prefix, run_id in (("", "r1"), (OTHER, "r2")):
        reads = (*READS, *(f"{OTHER}{name}" for name in READS))
        make_inputs(con, reads, Asked(lake.run(run_id), "all", {}), prefix=prefix, keep=True)
    yield con
    con.close()


def test_runs_are_exchanged_by_request(two_runs):
    before = [frame_of(two_runs, f"{p}usage_entries") for p in ("", OTHER)]
    redraw = Redraw(two_runs)
    NULLS["runs"](redraw, np.random.default_rng(0))
    after = [frame_of(two_runs, f"{p}usage_entries") for p in ("", OTHER)]
    moved = 0
    for origin in before[0]["origin"].unique():
        one, two = (frame.filter(origin=origin) for frame in before)
        new = [frame.filter(origin=origin) for frame in after]
        stays = new[0].equals(one) and new[1].equals(two)
        moves = new[0].equals(two) and new[1].equals(one)
        assert stays or moves
        moved += moves
    assert 2 < moved < 14


def test_pairs_move_tokens_of_the_second_run_alike_in_all_layers(two_runs):
    name = f"{OTHER}routing_entries"
    before, one = frame_of(two_runs, name), frame_of(two_runs, "routing_entries")
    redraw = Redraw(two_runs)
    NULLS["pairs"](redraw, np.random.default_rng(0))
    after = frame_of(two_runs, name)
    assert one.equals(frame_of(two_runs, "routing_entries"))
    keys = ["origin", "position", "layer_id"]
    assert before.select(keys).equals(after.select(keys))
    moved = before.join(after, on=["layer_id", "gate_weights"]).group_by("origin", "position")
    goals = moved.agg(pl.struct("origin_right", "position_right").n_unique().alias("goals"))
    assert goals["goals"].max() == 1
    assert before["gate_weights"].to_list() != after["gate_weights"].to_list()
