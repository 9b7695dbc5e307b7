"""An audit without the tokens that all prompts share: as an audit of the rest alone."""

import dataclasses
import json

import numpy as np
import pytest

from tracer.analysis.audit import audit
from tracer.errors import InputError
from tracer.report.audit_text import render_json, render_table

WRAP = ([1, 2, 3], [8, 9])  # token ids around every prompt, which choose experts 0 and 1


def made(request_of, *, wrapped):
    """12 requests of three domains; inner tokens choose 2 of experts 2 to 7, by chance."""
    rng = np.random.default_rng(4)
    template = {layer: {0: 0.9, 1: 0.05} for layer in (0, 3)}

    def token():
        return {
            layer: {
                int(e): float(w)
                for e, w in zip(
                    rng.choice(np.arange(2, 8), 2, replace=False), rng.random(2), strict=True
                )
            }
            for layer in (0, 3)
        }

    requests = []
    for number in range(12):
        inner = [token() for _ in range(1 + number % 4)]
        generated = [token() for _ in range(number % 3)]
        ids = [int(i) for i in rng.integers(20, 90, len(inner))]
        after = [int(i) for i in rng.integers(20, 90, len(generated) + bool(generated))]
        first, last = WRAP if wrapped else ([], [])
        requests.append(
            request_of(
                f"q{number}",
                ("law", "math", "poems")[number % 3],
                [template] * len(first) + inner + [template] * len(last),
                generated,
                token_ids=[*first, *ids, *last, *after],
            )
        )
    return requests


@pytest.mark.parametrize("tokens", ["prompt", "generated", "all"])
def test_what_is_left_is_audited_as_if_it_were_all(make_lake, request_of, tokens):
    lakes = [
        make_lake(made(request_of, wrapped=wrapped), folder=str(wrapped))
        for wrapped in (True, False)
    ]
    options = {"tokens": tokens, "draws": 19}
    without = audit(lakes[0], exclude_template=True, **options)
    plain = audit(lakes[1], **options)
    assert without.template_tokens == (3, 2)
    assert plain.template_tokens is None
    for name in ("layers", "contributions", "overlaps", "chance"):
        assert getattr(without, name) == getattr(plain, name)
    counts = [[(d.domain, d.num_tokens) for d in a.domains] for a in (without, plain)]
    assert counts[0] == counts[1]
    whole = audit(lakes[0], tokens=tokens)
    assert (whole.layers == plain.layers) == (tokens == "generated")


def test_the_output_says_what_is_left_out(make_lake, request_of):
    found = audit(make_lake(made(request_of, wrapped=True)), exclude_template=True)
    assert "left out: the 3 tokens that begin, the 2 that end all prompts" in render_table(found)
    assert [row["template_tokens"] for row in json.loads(render_json(found))] == [[3, 2]] * 2
    none = dataclasses.replace(found, template_tokens=None)
    assert "left out" not in render_table(none)


@pytest.mark.parametrize(
    "options", [{"mode": "reference"}, {"mode": "paper"}, {"same_token": True, "draws": 3}]
)
def test_other_sums_hold_the_template(make_lake, request_of, options):
    lake = make_lake(made(request_of, wrapped=True))
    with pytest.raises(InputError, match="gate weights alone"):
        audit(lake, exclude_template=True, **options)


def test_a_last_prompt_token_of_the_template_leaves_nothing(make_lake, request_of):
    lake = make_lake(made(request_of, wrapped=True))
    with pytest.raises(InputError, match="has no recorded last prompt tokens"):
        audit(lake, exclude_template=True, tokens="last-prompt")
