"""Our restoring of rows beside vLLM's recorder, in forward contexts made by hand.

vLLM's ``RoutedExpertsCapturer`` stays whole but for its buffer; what its tensor-parallel group
would gather is put together here, since it runs in one process. Micro-batches are compared with the
whole step; where they begin is told by a function that vLLM has from 0.33 on and that is put in its
place here. Prints the layouts compared.
"""

from itertools import product
from types import SimpleNamespace

import torch
from vllm import forward_context
from vllm.distributed import parallel_state
from vllm.forward_context import DPMetadata
from vllm.model_executor.layers.fused_moe.routed_experts_capturer import RoutedExpertsCapturer
from vllm.v1.worker import ubatching

from tracer.capture.attach import _shadow
from tracer.capture.buffer import RoutingBuffer
from tracer.capture.layout import RowLayout
from tracer.capture.row_format import Field, RowFormat

TOP_K = 2


def config_of(rank, ranks, shares, *, micro_batches=False):
    return SimpleNamespace(
        parallel_config=SimpleNamespace(
            data_parallel_rank=rank,
            data_parallel_size=ranks,
            tensor_parallel_size=shares,
            enable_dbo=False,
            use_ubatching=micro_batches,
        )
    )


def recorder(rank, shares, rows):
    made = object.__new__(RoutedExpertsCapturer)
    made.dp_rank, made.tp_size = rank, shares
    made.device_buffer = torch.full((rows, 1, TOP_K), -1, dtype=torch.int32)
    return made


def chunks(ids, shares):
    """Shares of a rank's rows as sequence parallelism makes them, zeros at the end."""
    size = -(-len(ids) // shares)
    padded = torch.nn.functional.pad(ids, (0, 0, 0, size * shares - len(ids)))
    return padded.split(size)


def compare(tokens, rank, *, dispatched, shares):
    ids = torch.arange(sum(tokens) * TOP_K).reshape(-1, TOP_K) + 1  # 0 is padding
    parts = [chunks(rows, shares) for rows in ids.split(tokens)]
    own = parts[rank]
    seen = torch.cat([share for part in parts for share in part]) if dispatched else own[0]
    metadata = DPMetadata(torch.tensor(tokens))
    parallel_state._TP = SimpleNamespace(
        all_gather=lambda share, dim: torch.cat([part.to(share.dtype) for part in own], dim)
    )
    runner = SimpleNamespace(
        do_naive_dispatch_combine=dispatched, moe_config=SimpleNamespace(sp_size=shares)
    )
    layout = RowLayout.of(config_of(rank, len(tokens), shares), runner)
    capturer = recorder(rank, shares, max(tokens))
    context = SimpleNamespace(dp_metadata=metadata, batch_descriptor=None)
    with forward_context.override_forward_context(context), metadata.sp_local_sizes(shares):
        (restored, weights), first_row = layout.restore(seen, seen.float())
        capturer.capture(0, seen)
    assert first_row == 0
    assert torch.equal(restored, ids.split(tokens)[rank])
    assert torch.equal(weights, restored.float())
    assert torch.equal(capturer.device_buffer[: tokens[rank], 0], restored.int())


def run_in_parts(tokens, parts):
    """A router called once per micro-batch, in any order, fills the rows of the whole step."""
    row_format = RowFormat(
        1,
        (
            Field("gate_weights", torch.float32, TOP_K),
            Field("expert_ids", torch.uint8, TOP_K),
            Field("position", torch.int32, 1, per_layer=False),
            Field("token_id", torch.int32, 1, per_layer=False),
        ),
    )
    buffer = RoutingBuffer.allocate(row_format, tokens, torch.device("cpu"))
    ids = torch.arange(tokens * TOP_K).reshape(-1, TOP_K)
    router = SimpleNamespace(_compute_routing=lambda hidden, *_, **__: (hidden.float(), hidden))
    runner = SimpleNamespace(do_naive_dispatch_combine=False, moe_config=SimpleNamespace(sp_size=1))
    layout = RowLayout.of(config_of(0, 1, 1, micro_batches=True), runner)
    _shadow(router, buffer, 0, (), layout)
    context = SimpleNamespace(dp_metadata=None)
    for begin, end in parts:
        ubatching.dbo_current_ubatch_token_offset = lambda begin=begin: begin
        with forward_context.override_forward_context(context):
            router._compute_routing(ids[begin:end], None, None)
    columns = row_format.tensors(buffer.storage)
    assert torch.equal(columns["expert_ids"][:, 0], ids.to(torch.uint8))
    assert torch.equal(columns["gate_weights"][:, 0], ids.float())


ubatching.dbo_current_ubatch_token_offset = None
for parts in ([(0, 4), (4, 7)], [(4, 7), (0, 4)], [(0, 7)], [(0, 1), (1, 2), (2, 7)]):
    run_in_parts(7, parts)
count = 0
for tokens, dispatched, shares in product(
    ([3, 5], [4, 4], [1, 6, 2], [8, 8, 8, 8], [1, 1]), (False, True), (1, 2, 4)
):
    for rank in range(len(tokens)):
        compare(tokens, rank, dispatched=dispatched, shares=shares)
        count += 1
print(count, "layouts")
