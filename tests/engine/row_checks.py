"""A lake against what vLLM returned and ran, and against another capture of the same tokens."""

import polars as pl
import torch

from tests.engine.routing import agreement


def requests_of(lake):
    """Rows of `requests` by request id."""
    return {row["request_id"]: row for row in pl.read_delta(str(lake / "requests")).to_dicts()}


def routing_of(lake):
    """(request_id, layer_id) -> (positions, ids [n, k], weights [n, k]), by position."""
    frame = pl.read_delta(str(lake / "routing")).sort("request_id", "layer_id", "position")
    return {
        key: (
            rows["position"].to_list(),
            torch.tensor(rows["expert_ids"].to_list()),
            torch.tensor(rows["gate_weights"].to_list()),
        )
        for key, rows in frame.group_by(["request_id", "layer_id"], maintain_order=True)
    }


def tokens_of(output):
    """Prompt and generated token ids of one of ``Captured.outputs``."""
    return output["prompt"] + output["generated"]


def check_rows(run, layers=4, ran=None):
    """Every token of vLLM's outputs is in `tokens`, and every one that ran in `routing`, once.

    ran: request id -> positions that vLLM ran; by default all but the last sampled token
    """
    frame = pl.read_delta(str(run.lake / "tokens")).sort("request_id", "position")
    stored = {
        request: (rows["position"].to_list(), rows["token_id"].to_list())
        for (request,), rows in frame.group_by(["request_id"], maintain_order=True)
    }
    expected = {name: tokens_of(output) for name, output in run.outputs.items()}
    assert stored == {name: (list(range(len(ids))), ids) for name, ids in expected.items()}
    ran = ran or {name: list(range(len(ids) - 1)) for name, ids in expected.items()}
    assert {key: positions for key, (positions, _, _) in routing_of(run.lake).items()} == {
        (name, layer): positions for name, positions in ran.items() for layer in range(layers)
    }


def check_same_routing(run, plain):
    """As far as a request's tokens are those of the plain capture, so is its routing.

    Returns:
        Number of (token, layer) compared.
    """
    found, expected = routing_of(run.lake), routing_of(plain.lake)
    compared = 0
    for (name, layer), (positions, ids, weights) in found.items():
        plain_positions, plain_ids, plain_weights = expected[name, layer]
        assert plain_positions == list(range(len(plain_positions)))
        tokens, plain_tokens = tokens_of(run.outputs[name]), tokens_of(plain.outputs[name])
        shared = min(len(tokens), len(plain_tokens)) - 1
        assert tokens[:shared] == plain_tokens[:shared], name
        kept = [place for place, position in enumerate(positions) if position < shared]
        at = [positions[place] for place in kept]
        same, difference = agreement((ids[kept], weights[kept]), (plain_ids[at], plain_weights[at]))
        assert same.all(), (name, layer)
        assert difference <= 1e-5, (name, layer)
        compared += len(kept)
    assert compared
    return compared
