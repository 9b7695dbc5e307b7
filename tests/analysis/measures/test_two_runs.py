"""Measures that compare two runs: what meets what, and what their random draws keep and break."""

import numpy as np
import polars as pl
import pytest

from tests.analysis.measures.conftest import arrays_of, made_requests
from tracer.analysis.measures.inputs import Asked, make_inputs
from tracer.analysis.measures.nulls import NULLS
from tracer.analysis.measures.redraw import Redraw, drawn_requests
from tracer.analysis.measures.run import Settings, run_measure
from tracer.analysis.sql import connect
from tracer.errors import InputError

pytestmark = pytest.mark.parametrize("made", ["planted"], indirect=True)
READS = ["routed_tokens", "expert_usage", "scoped_tokens", "expert_logits"]


def opened(lake, reads=READS, **asked):
    """(connection, redraw) of runs r1 and r2 with ``reads`` of both."""
    con = connect(lake)
    both = [*reads, *(f"other_{name}" for name in reads)]
    for prefix, run_id in (("", "r1"), ("other_", "r2")):
        scope = Asked(lake.run(run_id), "all", {}, **asked)
        make_inputs(con, both, scope, prefix=prefix, keep=True)
    return con, Redraw(con)


def rows(con, query):
    return con.sql(query).pl()


def test_each_run_has_its_own_relations(pair):
    lake, *both = pair
    con, _ = opened(lake)
    for prefix, requests in zip(("", "other_"), both, strict=True):
        choices = arrays_of(requests)
        found = rows(
            con, f"from {prefix}routed_tokens where layer_id = 2 order by request_id, position"
        )
        order = np.lexsort((choices.position, choices.request))
        assert found["request_id"].to_list() == choices.request[order].tolist()
        assert found["expert_ids"].to_list() == choices.ids[2][order].tolist()
        usage = rows(con, f"select sum(num_choices) as n from {prefix}expert_usage").item()
        assert usage == sum(ids.size for ids in choices.ids.values())
        logits = rows(
            con,
            f"select logit from {prefix}expert_logits where layer_id = 5 and "
            "request_id = 'law-0' order by position, expert_id",
        )["logit"]
        assert logits.to_list() == pytest.approx(choices.logits[5][0], rel=1e-6)


def test_requests_of_both_are_drawn_alike_and_those_of_one_on_their_own(pair):
    """r2 has law-new in the place of law-1; drawn ones are as many of each domain as recorded."""
    lake, *_ = pair
    con, redraw = opened(lake)
    recorded = {
        name: redraw.recorded(name) for name in ("scoped_requests", "other_scoped_requests")
    }
    seen = set()
    for seed in range(20):
        drawn_requests(redraw, np.random.default_rng(seed))
        one, two = rows(con, "from scoped_requests"), rows(con, "from other_scoped_requests")
        shared = one.filter(pl.col("origin") != "law-1")
        assert sorted(two.filter(pl.col("origin") != "law-new")["request_id"]) == sorted(
            shared["request_id"]
        )
        assert two["origin"].to_list().count("law-new") == 1
        assert (
            one["domain"]
            .value_counts(sort=True)
            .equals(recorded["scoped_requests"]["domain"].value_counts(sort=True))
        )
        assert two["request_id"].is_unique().all()
        seen.add(tuple(sorted(one["request_id"])))
    assert len(seen) == 20
    redraw.restore()
    for name, frame in recorded.items():
        assert rows(con, f"from {name}").sort("origin").equals(frame.sort("origin"))


def test_pairs_moves_whole_tokens_of_the_second_run_among_the_compared(pair):
    """The first run, loads, what is not compared and a token's layers stay; its place does not."""
    lake, requests, others = pair
    con, redraw = opened(lake)
    recorded = redraw.recorded("other_routing_entries")
    alike = compared_places(requests, others)
    NULLS["pairs"](redraw, np.random.default_rng(1))
    drawn = rows(con, "from other_routing_entries")
    assert rows(con, "from routing_entries").height == redraw.recorded("routing_entries").height
    key = ["origin", "phase", "position", "layer_id"]
    assert drawn.select(key).sort(key).equals(recorded.select(key).sort(key))

    def tokens(frame):
        by_token = frame.sort(key).group_by("origin", "position", maintain_order=True)
        return {
            place: tuple(map(tuple, lists))
            for *place, lists in by_token.agg("expert_ids").iter_rows()
            for place in [tuple(place)]
        }

    before, after = tokens(recorded), tokens(drawn)
    assert {p: v for p, v in before.items() if p not in alike} == {
        p: v for p, v in after.items() if p not in alike
    }
    assert sorted(before[p] for p in alike) == sorted(after[p] for p in alike)
    assert sum(before[p] != after[p] for p in alike) > len(alike) / 2


def compared_places(requests, others):
    """Places that both routed, before the first token of a request that differs."""
    second = {request.request_id: request for request in others}
    found = set()
    for request in requests:
        other = second.get(request.request_id)
        for position in range(len(request.prompt) + len(request.generated) if other else 0):
            if request.token_ids[position] != other.token_ids[position]:
                break
            found.add((request.request_id, position))
    return found


def test_the_fixture_has_tokens_that_are_not_compared(pair):
    _, requests, others = pair
    missing = len(arrays_of(requests).request) - len(compared_places(requests, others))
    assert missing > len(requests[1].prompt) + len(requests[1].generated)


def test_runs_exchanges_whole_requests(pair):
    """Each request keeps its rows, in one run or the other; a request of both is in both."""
    lake, *_ = pair
    con, redraw = opened(lake)
    names = ["usage_entries", "routing_entries", "logit_entries", "token_entries"]
    swapped, alone = [], set()
    for seed in range(12):
        NULLS["runs"](redraw, np.random.default_rng(seed))
        runs = [rows(con, f"from {prefix}scoped_requests") for prefix in ("", "other_")]
        shared = set(runs[0]["origin"]) & set(runs[1]["origin"])
        assert len(shared) == 15
        alone.add(("law-new" in runs[0]["origin"], "law-1" in runs[0]["origin"]))
        for name in names:
            was = [redraw.recorded(f"{prefix}{name}") for prefix in ("", "other_")]
            now = [rows(con, f"from {prefix}{name}") for prefix in ("", "other_")]
            for origin in shared | {"law-1", "law-new"}:
                before = [sorted(f.filter(origin=origin).rows(), key=repr) for f in was]
                after = [sorted(f.filter(origin=origin).rows(), key=repr) for f in now]
                assert after in (before, before[::-1])
                if name == "routing_entries" and origin in shared:
                    swapped.append(after != before)
    assert 0.35 < np.mean(swapped) < 0.65  # of 12 times 15 tosses
    assert alone == {(True, False), (False, True)}


def test_a_limit_takes_the_same_requests_of_both_runs(pair):
    lake, *_ = pair
    for seed in range(5):
        con, _ = opened(lake, ["scoped_tokens"], requests=6, seed=seed)
        one, two = (set(rows(con, f"from {p}scoped_requests")["origin"]) for p in ("", "other_"))
        assert len(one) == len(two) == 6
        assert one - two <= {"law-1"}


def test_a_measure_of_two_runs_needs_two_and_of_one_takes_one(pair, take):
    lake, *_ = pair
    with pytest.raises(InputError, match="two runs") as refused:
        take(lake, "router_saturation")
    assert "--other-run" in refused.value.hint
    with pytest.raises(InputError, match="one run"):
        take(lake, "expert_load", other_run_id="r2")


@pytest.mark.parametrize("shape", [(9, 2, "per layer: 8 and 9"), (8, 1, "top-k: 2 and 1")])
def test_runs_of_other_sizes_are_refused(made, make_lake, together, shape):
    num_experts, top_k, words = shape
    requests = made_requests(3, planted=True)
    second = make_lake(requests, run_id="r2", num_experts=num_experts, top_k=top_k)
    lake = together(made[0], second)
    with pytest.raises(InputError, match=words):
        run_measure(lake, "router_saturation", run_id="r1", other_run_id="r2")


def test_runs_of_two_models_are_noted(made, make_lake, together):
    requests = made_requests(3, planted=True)
    second = make_lake(requests, run_id="r2", model="m/step-5000")
    lake = together(made[0], second)
    result = run_measure(
        lake, "router_saturation", run_id="r1", other_run_id="r2", settings=Settings(draws=0)
    )
    assert len(result.notes) == 1
    assert "m and m/step-5000" in result.notes[0]


def test_runs_without_a_common_token_have_rows_without_values(made, make_lake, together, take):
    requests = made_requests(3, planted=True)
    for request in requests:
        request.request_id += "-again"
    lake = together(made[0], make_lake(requests, run_id="r2"))
    for name, value in (
        ("router_saturation", "saturation"),
        ("routing_fluctuation", "fluctuation"),
    ):
        found = take(lake, name, other_run_id="r2", draws=3)
        assert found["num_tokens"].to_list() == [0, 0, 0]
        for column in (value, f"{value}_closed_form"):
            assert found[column].null_count() == 3
        assert found[f"{value}_chance"].is_nan().all()
        assert found[f"{value}_p_adjusted"].is_nan().all()


def test_one_model_puts_two_samples_of_the_first_run_in_the_place_of_both(pair):
    lake, *_ = pair
    con, redraw = opened(lake)
    requests = redraw.recorded("scoped_requests")
    recorded = redraw.recorded("other_routing_entries")
    alike = 0
    for seed in range(5):
        NULLS["one_model"](redraw, np.random.default_rng(seed))
        samples = [rows(con, f"from {prefix}scoped_requests") for prefix in ("", "other_")]
        for sample in samples:
            assert set(sample["origin"]) <= set(requests["origin"])
            assert sorted(sample["domain"]) == sorted(requests["domain"])
        alike += sorted(samples[0]["origin"]) == sorted(samples[1]["origin"])
        other = rows(con, "from other_routing_entries")
        assert other.sort(pl.all().exclude("expert_ids", "gate_weights")).equals(
            redraw.recorded("routing_entries").sort(pl.all().exclude("expert_ids", "gate_weights"))
        )
    assert alike == 0
    redraw.restore()
    assert rows(con, "from other_routing_entries").equals(recorded)


def test_chance_of_one_model_has_the_second_run_s_requests(pair):
    """Of 9, 5 and 2 requests by domain the second run keeps 3, 5 and none: so does its sample."""
    lake, *_ = pair
    con, redraw = opened(lake)
    other = redraw.recorded("other_scoped_requests")
    kept = pl.concat([other.filter(domain="law").head(3), other.filter(domain="math").head(5)])
    redraw._recorded["other_scoped_requests"] = kept
    NULLS["one_model"](redraw, np.random.default_rng(0))
    sizes = [
        dict(rows(con, f"select domain, count(*) from {p}scoped_requests group by 1").iter_rows())
        for p in ("", "other_")
    ]
    assert sizes == [{"law": 9, "math": 5, "poems": 2}, {"law": 3, "math": 5}]


@pytest.mark.parametrize("null", ["runs", "one_model"])
def test_runs_with_nothing_in_common_have_no_chance(pair, null):
    lake, *_ = pair
    _, redraw = opened(lake)
    other = redraw.recorded("other_scoped_requests")
    renamed = other.with_columns(pl.lit("else").alias("domain"), origin="x" + pl.col("origin"))
    redraw._recorded["other_scoped_requests"] = renamed
    with pytest.raises(InputError, match="the two runs"):
        NULLS[null](redraw, np.random.default_rng(0))
