"""End to end against Hugging Face transformers on the same token sequences.

float32: id sets equal for every (token, layer), weights within 1e-5. For bfloat16 a rate is
reported; docs/capture.md has the numbers.
"""

import pytest
import torch

from tests.engine.routing import agreement, hugging_face_logits, rows_of, softmax_topk

pytestmark = pytest.mark.engine


def compare(run, logits, *, renormalise):
    """(share of id sets that agree, largest weight difference, number of (token, layer))."""
    rows = rows_of(run.lake)
    same, worst = [], 0.0
    for index, request in enumerate(run.outputs):
        for layer, by_sequence in logits.items():
            expected = softmax_topk(by_sequence[index], 4, renormalise=renormalise)
            equal, difference = agreement(rows[request, layer], expected)
            same.append(equal)
            worst = max(worst, difference)
    every = torch.cat(same)
    return every.float().mean().item(), worst, len(every)


def sequences(run):
    """What was forwarded: prompt and generated tokens without the last sampled one."""
    return [(o["prompt"] + o["generated"])[:-1] for o in run.outputs.values()]


@pytest.mark.parametrize(
    ("architecture", "renormalise"),
    [("olmoe", False), ("qwen3_moe", True), ("deepseek_v2", False)],
)
def test_float32_agrees_with_hugging_face(captured, architecture, renormalise):
    run = captured(architecture)
    logits = hugging_face_logits(run.model, sequences(run))
    share, worst, count = compare(run, logits, renormalise=renormalise)
    print(f"{architecture}: {share:.6f} of {count} id sets agree, |dw| <= {worst:.2e}")
    assert count == run.summary["num_rows"]
    assert share == 1.0
    assert worst <= 1e-5


def test_bfloat16_rate_against_hugging_face(captured):
    """Rounding moves choices whose scores lie close together; on the plant few do."""
    run = captured("olmoe", "--dtype", "bfloat16")
    logits = hugging_face_logits(run.model, sequences(run), dtype=torch.bfloat16)
    share, worst, count = compare(run, logits, renormalise=False)
    print(f"olmoe bfloat16: {share:.4f} of {count} id sets agree, |dw| <= {worst:.2e}")
    assert share > 0.98
