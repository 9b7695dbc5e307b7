"""Our restoring of rows beside vLLM's recorder, in forward contexts made by hand.

vLLM's ``RoutedExpertsCapturer`` stays whole but for its buffer; what its tensor-parallel group
would gather is put together here, since it runs in one process. Prints the layouts compared.
"""

from itertools import product
from types import SimpleNamespace

import torch
from vllm import forward_context
from vllm.distributed import parallel_state
from vllm.forward_context import DPMetadata
from vllm.model_executor.layers.fused_moe.routed_experts_capturer import RoutedExpertsCapturer

from tracer.capture.layout import RowLayout

TOP_K = 2


def config_of(rank, ranks, shares):
    return SimpleNamespace(
        parallel_config=SimpleNamespace(
            data_parallel_rank=rank,
            data_parallel_size=ranks,
            tensor_parallel_size=shares,
            enable_dbo=False,
            use_ubatching=False,
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


count = 0
for tokens, dispatched, shares in product(
    ([3, 5], [4, 4], [1, 6, 2], [8, 8, 8, 8], [1, 1]), (False, True), (1, 2, 4)
):
    for rank in range(len(tokens)):
        compare(tokens, rank, dispatched=dispatched, shares=shares)
        count += 1
print(count, "layouts")
