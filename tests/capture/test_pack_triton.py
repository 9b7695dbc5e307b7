"""The Triton kernel without a GPU: interpreted against torch's casts, and compiled for GPUs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

triton = pytest.importorskip("triton", reason="needs vLLM: make setup")


def test_the_kernel_stores_what_torch_would_cast():
    """Every k from 1 to 12, expert counts around both id widths, all dtypes, all of float32."""
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("pack_in_interpreter.py")],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
        env={"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"},
    )
    assert json.loads(done.stdout) == {
        "checked": 720,
        "wrong": [],
        "rounded_otherwise": 0,
        "nan_lost": 0,
    }


@pytest.mark.parametrize("capability", [80, 90, 100])
@pytest.mark.parametrize(
    "types",  # of the ids and weights given, then of those stored
    [
        ("*i32", "*fp32", "*u8", "*bf16"),
        ("*i64", "*bf16", "*i16", "*fp32"),
        ("*i32", "*fp16", "*i16", "*bf16"),
        ("*i64", "*fp32", "*u8", "*fp32"),
    ],
)
@pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")
def test_the_kernel_compiles_to_machine_code(monkeypatch, tmp_path, capability, types):
    """The interpreter accepts what the compiler refuses; the assembler needs no GPU."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from tracer.capture.pack_kernel import _BLOCK, _pack

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    tensors = ("topk_ids", "topk_weights", "expert_ids", "gate_weights")
    signature = {
        **dict.fromkeys(_pack.arg_names, "i32"),
        **dict(zip(tensors, types, strict=True)),
        "top_k": "constexpr",
        "block": "constexpr",
    }
    source = ASTSource(fn=_pack, signature=signature, constexprs={"top_k": 6, "block": _BLOCK})
    kernel = triton.compile(source, target=GPUTarget("cuda", capability, 32))
    assert f".target sm_{capability}" in kernel.asm["ptx"]
    assert kernel.asm["cubin"][:4] == b"\x7fELF"


def test_only_dtypes_and_k_choose_a_variant():
    """No compilation for another batch size or layer while a graph is being captured."""
    from tracer.capture.pack_kernel import _pack

    assert [
        parameter.name
        for parameter in _pack.params
        if not (parameter.do_not_specialize and parameter.do_not_specialize_on_alignment)
    ] == ["top_k", "block"]
