"""Models and engines whose routing cannot be recorded: refused before any prompt runs."""

import pytest

from tests.engine.conftest import HERE

pytestmark = pytest.mark.engine


# What is odd about the model -> the fact in the error, the advice in the hint.
CASES = {
    "monolithic": ("routes inside a fused kernel", "--moe-backend triton"),
    "foreign_router": ("unknown router class object", "BaseRouter"),
    "same_layer": ("two routers call themselves layer 0", "cannot be captured yet"),
    "fewer_choices": ("layers differ in top_k: {0: 3, 1: 4", "one shape per model"),
    "fused_shared_experts": ("routes to shared experts together", "fusion of shared experts"),
    "foreign_model_runner": ("OtherRunner is not supported", "V1 or V2 model runner"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_cannot_be_captured_is_refused(engine, planted_model, tmp_path, case):
    words, hint = CASES[case]
    model = planted_model("olmoe")
    done = engine.run(case, model, code=HERE / "capture_odd_model.py", cwd=tmp_path)
    assert (done.exit_code, done.stdout) == (4, ""), done.stderr[-2000:]
    error, advice = done.stderr.splitlines()[-2:]
    assert error.startswith("Error: ")
    assert words in error
    assert advice.startswith("Hint: ")
    assert hint in advice
    assert not (tmp_path / "lake").exists()


def test_routers_that_cannot_be_read_are_refused(engine, planted_model, tmp_path):
    done = engine.run(
        "hidden_gate", planted_model("olmoe"), "--router-weights",
        code=HERE / "capture_odd_model.py", cwd=tmp_path,
    )  # fmt: skip
    assert (done.exit_code, done.stdout) == (4, ""), done.stderr[-2000:]
    assert "layer 0 has no linear router that could be read" in done.stderr
    assert "leave --router-weights off" in done.stderr
    assert not (tmp_path / "lake").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--top-m", "4"], "--top-m 4 does not fit a model that chooses 4 of 16"),
        (["--top-m", "17"], "from 5 to 16"),
    ],
)
def test_extras_that_do_not_fit_the_model_are_refused(
    engine, planted_model, tmp_path, options, words
):
    done = engine.run(
        "capture", "--model", planted_model("olmoe"), "--dataset", "demo", "--limit", "1",
        "--lake", "lake", "--enforce-eager", *options, cwd=tmp_path,
    )  # fmt: skip
    assert (done.exit_code, done.stdout) == (2, ""), done.stderr[-2000:]
    assert words in done.stderr
    assert not (tmp_path / "lake").exists()
