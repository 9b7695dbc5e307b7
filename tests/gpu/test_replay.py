"""CUDA graphs of routers, replayed with changing batch sizes: every byte of every step arrives."""

import pytest
import torch

from tests.gpu.router_stack import Shape, captured, wrong_steps


def test_ten_thousand_replays_arrive_bit_by_bit(device):
    """OLMoE's shape; padding, several graph sizes, a layer left out in every third step."""
    assert wrong_steps(Shape(16, 8, 64), device, 10_000, captured) == []


@pytest.mark.parametrize(
    "shape",
    [
        Shape(6, 8, 256, renormalise=True),
        Shape(6, 6, 128, torch.float32),
        Shape(3, 1, 16, torch.float32, renormalise=True),
        Shape(3, 12, 512),
    ],
)
def test_other_shapes_arrive_bit_by_bit(device, shape):
    assert wrong_steps(shape, device, 1_000, captured) == []
