"""Measures of router logits: by hand, and beside NumPy on a planted and a random run."""

import numpy as np
import pytest

from tests.analysis.measures.conftest import LAYERS, TOP_K, arrays_of, noisy_requests
from tracer.analysis.measures.inputs import Asked, make_inputs
from tracer.analysis.measures.nulls import NULLS
from tracer.analysis.measures.redraw import Redraw
from tracer.analysis.sql import connect
from tracer.errors import InputError

LOG3 = float(np.float32(np.log(3)))
NAMES = ["router_confidence", "expert_choice_agreement", "balance_losses"]


def small_lake(make_lake, request_of, run_id="r1", swap=False):
    """Logits (ln 3, 0) and, unless ``swap``, the same twice more; then (0, ln 3). E = 2, k = 1.

    Probabilities 3/4, 1/4 and 1/4, 3/4. With ``swap`` two of the four tokens are of each kind.
    """
    kinds = [0, 0, 1, 1] if swap else [0, 0, 0, 1]
    return make_lake(
        [
            request_of(
                "q",
                "law",
                [{3: {kind: 0.75}} for kind in kinds],
                logits=[{3: [LOG3, 0] if kind == 0 else [0, LOG3]} for kind in kinds],
            )
        ],
        num_experts=2,
        top_k=1,
        run_id=run_id,
    )


H = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))  # of 3/4, 1/4
COLUMN = -(0.625 * np.log(0.625) + 0.375 * np.log(0.375))  # of the mean 5/8, 3/8


def test_confidence_by_hand(make_lake, request_of, take):
    """The square of p - 1/2 is 1/16: 2 alpha + 1 = (1/4) / (1/16) = 4."""
    found = take(small_lake(make_lake, request_of), "router_confidence")
    values = [0.75, H, H / np.log(2), np.log(3), 1.5]
    assert found.rows() == [(3, 4, *[pytest.approx(value, abs=1e-7) for value in values])]


def test_expert_choice_by_hand(make_lake, request_of, take):
    """Each takes 2 of 4: expert 0 tokens 0 and 1, expert 1 token 3 and, all equal, token 0.

    Tokens 0, 1 and 3 keep their choice; 2 is dropped; (1 - 1/2)^2 would be.
    """
    found = take(small_lake(make_lake, request_of), "expert_choice_agreement")
    assert found.rows() == [(3, 4, 2, 0.75, 0.5, 0.25, 0.25)]


def test_losses_by_hand(make_lake, request_of, together, take):
    """f = 3/4, 1/4 and P = 5/8, 3/8: 2 (15/32 + 3/32) - 1 = 1/8; closed form (2 * 3/4 - 1) / 4.

    In the second run all is even.
    """
    lake = small_lake(make_lake, request_of)
    close = pytest.approx
    assert take(lake, "balance_losses").rows() == [
        (3, 4, close(1 / 8), close(1 / 8), close(H - COLUMN), close(-COLUMN))
    ]
    both = together(lake, small_lake(make_lake, request_of, "r2", swap=True))
    even = np.log(2)
    assert take(both, "perturbed_balance_losses", other_run_id="r2").rows() == [
        (
            3,
            1,
            *(close(1 / 8), close(0, abs=1e-7), close(-1 / 8)),
            *(close(H - COLUMN), close(H - even), close(COLUMN - even)),
            *(close(-COLUMN), close(-even), close(COLUMN - even)),
        )
    ]


def softmax(logits):
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def entropy(p):
    return -np.where(p > 0, p * np.log(np.where(p > 0, p, 1)), 0).sum(axis=-1)


def confidence(logits):
    p, ordered = softmax(logits), -np.sort(-logits, axis=1)
    square = ((p - 1 / p.shape[1]) ** 2).mean()
    share = 1 / p.shape[1]
    return {
        "num_tokens": len(p),
        "max_probability": p.max(axis=1).mean(),
        "entropy": entropy(p).mean(),
        "relative_entropy": entropy(p).mean() / np.log(p.shape[1]),
        "margin": (ordered[:, TOP_K - 1] - ordered[:, TOP_K]).mean(),
        "alpha": (share * (1 - share) / square - 1) / p.shape[1],
    }


def losses(logits):
    p = softmax(logits)
    f = np.bincount(p.argmax(axis=1), minlength=p.shape[1]) / len(p)
    column = p.mean(axis=0)
    return {
        "switch_loss": p.shape[1] * (f * column).sum() - 1,
        "switch_loss_closed_form": (p.shape[1] * p.max(axis=1).mean() - 1) / len(p),
        "entropy_loss": entropy(p).mean() - entropy(column),
        "column_loss": -entropy(column),
    }


def expert_choice(logits, ids, place):
    """place: of each token among all by request and position, for equal probabilities."""
    p = np.round(softmax(logits), 15)
    n, num_experts = p.shape
    capacity = -(-n * TOP_K // num_experts)
    taken = np.zeros(p.shape, dtype=bool)
    for expert in range(num_experts):
        taken[np.lexsort((place, -p[:, expert]))[:capacity], expert] = True
    return {
        "capacity": capacity,
        "agreement": np.take_along_axis(taken, ids, axis=1).mean(),
        "agreement_closed_form": capacity / n,
        "dropped": (~taken.any(axis=1)).mean(),
        "dropped_closed_form": (1 - capacity / n) ** num_experts,
    }


def written(requests, tokens="all"):
    """Choices, logits as float32 by layer, and the tokens' order by request and position."""
    choices = arrays_of(requests, tokens)
    order = np.lexsort((choices.position, choices.request))
    logits = {layer: v.astype(np.float32).astype(float) for layer, v in choices.logits.items()}
    return choices, logits, np.argsort(order)


@pytest.mark.parametrize("tokens", ["all", "last-prompt"])
@pytest.mark.parametrize("name", NAMES)
def test_beside_numpy(made, take, name, tokens):
    lake, requests = made
    choices, logits, place = written(requests, tokens)
    found = take(lake, name, tokens=tokens)
    for layer in LAYERS:
        wanted = {
            "router_confidence": lambda layer: confidence(logits[layer]),
            "balance_losses": lambda layer: losses(logits[layer]),
            "expert_choice_agreement": lambda layer: expert_choice(
                logits[layer], choices.ids[layer], place
            ),
        }[name](layer)
        row = found.filter(layer_id=layer).row(0, named=True)
        assert row["num_tokens"] == len(place)
        for column, value in wanted.items():
            assert row[column] == pytest.approx(value, abs=1e-10), column


def test_perturbed_losses_beside_numpy(pair, take):
    lake, *both = pair
    found = take(lake, "perturbed_balance_losses", other_run_id="r2")
    for layer in LAYERS:
        one, two = (losses(written(requests)[1][layer]) for requests in both)
        row = found.filter(layer_id=layer).row(0, named=True)
        assert row["num_shared"] == 15
        for loss in ("switch", "entropy", "column"):
            name = f"{loss}_loss"
            assert row[name] == pytest.approx(one[name], abs=1e-10)
            assert row[f"other_{name}"] == pytest.approx(two[name], abs=1e-10)
            change = two[name] - one[name]
            assert row[f"{loss}_change"] == pytest.approx(change, abs=1e-10)


def shuffled(logits, rng):
    return np.stack([rng.permutation(column) for column in logits.T], axis=1)


@pytest.mark.parametrize("made", ["planted"], indirect=True)
def test_chance_of_shuffled_logits(made, take):
    """Means of 19 draws beside 200 in NumPy; agreement beside its closed form.

    The plant is in the loads and in token ids, so both stay; by chance experts compete less.
    """
    lake, requests = made
    choices, logits, place = written(requests)
    rng = np.random.default_rng(4)
    drawn = [shuffled(logits[2], rng) for _ in range(200)]
    found = take(lake, "router_confidence", draws=19).filter(layer_id=2)
    for value in ("max_probability", "entropy", "margin"):
        simulated = [confidence(one)[value] for one in drawn]
        error = 5 * np.std(simulated) / np.sqrt(19)
        assert found[f"{value}_chance"].item() == pytest.approx(np.mean(simulated), abs=error)
    found = take(lake, "expert_choice_agreement", draws=19)
    np.testing.assert_allclose(found["agreement_chance"], found["agreement_closed_form"], atol=0.03)
    assert (found["agreement_p_adjusted"] <= 0.05).all()
    simulated = [expert_choice(one, choices.ids[2], place)["dropped"] for one in drawn]
    error = 5 * np.std(simulated) / np.sqrt(19)
    assert found["dropped_chance"][1] == pytest.approx(np.mean(simulated), abs=error)


def test_chance_of_balance_is_its_closed_form(made, take):
    """Expert 0 is first almost always where it is planted; never 7, so neither run is balanced."""
    found = take(made[0], "balance_losses", draws=29)
    np.testing.assert_allclose(
        found["switch_loss_chance"], found["switch_loss_closed_form"], atol=0.02
    )
    assert (found["column_loss"] > found["column_loss_chance_high"]).all()
    if found["switch_loss"].min() > 0.5:  # planted
        assert (found["switch_loss_p_adjusted"] <= 0.04).all()


@pytest.mark.parametrize("made", ["planted"], indirect=True)
def test_noise_flattens_the_load_of_a_perturbed_run(made, make_lake, together, take):
    lake, requests = made
    second = make_lake(noisy_requests(requests, 6, 6.0), run_id="r2")
    both = together(lake, second)
    found = take(both, "perturbed_balance_losses", other_run_id="r2", draws=29)
    assert (found["switch_change"] < found["switch_change_chance_low"]).all()
    assert (found["switch_change_p_adjusted"] <= 0.04).all()
    assert found["switch_change_chance"].to_list() == pytest.approx([0, 0, 0], abs=0.2)


@pytest.mark.parametrize("made", ["planted"], indirect=True)
def test_draws_of_logits_keep_what_they_say(made):
    """Of uniform each token keeps its logits, of logits each expert of a layer does."""
    lake, _ = made
    con = connect(lake)
    reads = ["expert_logits", "routed_tokens"]
    make_inputs(con, reads, Asked(lake.run("r1"), "all", {}), keep=True)
    redraw = Redraw(con)
    recorded = redraw.recorded("logit_entries")
    key = ["origin", "position", "layer_id"]

    def drawn(name, seed):
        NULLS[name](redraw, np.random.default_rng(seed))
        frame = con.sql("from logit_entries").pl().sort("origin", "layer_id", "position")
        assert frame.select(key).equals(recorded.select(key))
        return np.array(frame["logits"].to_list())

    was, layers = np.array(recorded["logits"].to_list()), recorded["layer_id"].to_numpy()
    uniform = drawn("uniform", 1)
    np.testing.assert_array_equal(np.sort(uniform, axis=1), np.sort(was, axis=1))
    means = np.mean([drawn("uniform", seed).mean(axis=0) for seed in range(10)], axis=0)
    np.testing.assert_allclose(means, was.mean(), atol=0.6)  # of 0 and 7 they were 3 and -20

    routing = redraw.recorded("routing_entries")
    redraw.restore()
    moved = drawn("logits", 1)
    for layer in LAYERS:
        one, two = moved[layers == layer], was[layers == layer]
        two = two - two.mean(axis=1, keepdims=True)  # a token's own offset changes no probability
        np.testing.assert_allclose(np.sort(one, axis=0), np.sort(two, axis=0), atol=1e-5)
        assert abs(np.corrcoef(one[:, 1], one[:, 2])[0, 1]) < 0.3
        assert np.corrcoef(two[:, 1], two[:, 2])[0, 1] < -0.3  # one is of law, two of math
    assert redraw.recorded("routing_entries").equals(routing)
    assert sorted(con.sql("from routing_entries").fetchall()) == sorted(routing.rows())


def test_runs_without_logits_are_refused(make_lake, request_of, take):
    lake = make_lake([request_of("q", "law", [{3: {0: 0.6, 1: 0.4}}])])
    for name in NAMES:
        with pytest.raises(InputError, match="no router_logits") as refused:
            take(lake, name)
        assert "--router-logits" in refused.value.hint


def test_offsets_of_tokens_change_neither_values_nor_chance(make_lake, request_of, take):
    """Logits of every token raised by a number of its own: the same probabilities, so the same."""
    rng = np.random.default_rng(6)
    plain = rng.normal(size=(40, 4)).astype(np.float16).astype(float)
    raised = plain + rng.integers(-8, 9, (40, 1))
    frames = []
    for number, logits in enumerate((plain, raised)):
        request = request_of(
            "q",
            "law",
            [{3: {int(np.argmax(row)): 0.5}} for row in logits],
            logits=[{3: row.tolist()} for row in logits],
        )
        lake = make_lake([request], num_experts=4, top_k=1, folder=str(number))
        frames.append(take(lake, "router_confidence", draws=9))
    for column in frames[0].columns:
        one, two = (frame[column].to_numpy() for frame in frames)
        np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6)
