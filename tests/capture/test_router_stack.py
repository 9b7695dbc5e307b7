"""The check that runs on GPUs, run eagerly on the CPU: it passes, and it can fail."""

import subprocess
import sys

import pytest

torch = pytest.importorskip("torch", reason="needs vLLM: make setup")

from tests.gpu import router_stack  # noqa: E402
from tests.gpu.router_stack import Shape, eager, plan, wrong_steps  # noqa: E402

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    "shape",
    [
        Shape(4, 8, 64),
        Shape(2, 6, 256, torch.float32, renormalise=True),
    ],
)
def test_every_byte_of_every_step_arrives(shape):
    assert wrong_steps(shape, CPU, 40, eager) == []


def test_the_steps_leave_rows_of_padding_and_a_layer_unrecorded():
    """What the check is worth depends on it: all sizes occur, most steps have padding."""
    steps = plan(1000)
    assert {step.size for step in steps} == set(router_stack.SIZES)
    assert all(step.rows <= step.size for step in steps)
    assert sum(step.rows < step.size for step in steps) > 500
    assert sum(step.skips for step in steps) == 333


def test_a_replay_that_does_nothing_is_noticed():
    """Every tenth replay is lost: its rows hold the fill, or those of an earlier step."""

    def losing(stack):
        numbers = iter(range(50))
        return lambda size, skips: stack.forward(size, skips=skips) if next(numbers) % 10 else None

    wrong = wrong_steps(Shape(3, 8, 32), CPU, 50, losing)
    assert [step.number for step in wrong] == [0, 10, 20, 30, 40]


def test_a_buffer_that_is_not_cleared_is_noticed(monkeypatch):
    """The layer left out then keeps the choices of an earlier step."""
    monkeypatch.setattr(router_stack.RoutingBuffer, "clear", lambda self, rows: None)
    wrong = wrong_steps(Shape(3, 8, 32), CPU, 30, eager)
    assert wrong
    assert all(step.skips for step in wrong)


def test_rows_that_the_next_step_overwrites_are_noticed(monkeypatch):
    """A drain that keeps no copy of its own hands out the rows of later steps."""

    class Aliasing:
        def __init__(self, *args):
            pass

        def take(self, storage):
            return Alias(storage)

        def close(self):
            pass

    class Alias:
        def __init__(self, storage):
            self.rows = storage.numpy

        def release(self):
            pass

    monkeypatch.setattr(router_stack, "Drain", Aliasing)
    assert wrong_steps(Shape(3, 8, 32), CPU, 30, eager)


def test_a_machine_with_torch_and_numpy_alone_can_run_it(repository):
    """Whatever else is asked for while the helper is imported is missing there."""
    code = (
        "import sys, torch, numpy\n"
        "class Missing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] not in ('tests', 'tracer', 'torch', 'numpy', "
        "*sys.stdlib_module_names):\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Missing())\n"
        "import tests.gpu.router_stack\n"
        "print(sorted(m for m in sys.modules if m.startswith('tracer.')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=repository
    )
    assert done.returncode == 0, done.stderr
    names = ("buffer", "drain", "pack", "row_format")
    assert done.stdout.strip() == str(["tracer.capture", *(f"tracer.capture.{n}" for n in names)])
