"""Which rows a router sees under data, expert and sequence parallelism, and which are our own.

Without them a router sees the rows of its worker's batch and nothing else. Data parallelism may
gather the rows of all ranks before routing; sequence parallelism gives each rank of a
tensor-parallel group a share; micro-batching calls the router once per part of the batch. Here the
rows of this rank are found again, in the order of its batch.

All numbers used are known when the hook runs in Python, and they stay true where CUDA graphs
replay it: under a graph vLLM pads every data-parallel rank to the same number of tokens
(``v1/worker/dp_utils.py``), and a micro-batch begins where it began at capture.

Read in vLLM 0.32 and 0.33: ``fused_moe/runner/moe_runner.py`` (dispatch before routing),
``forward_context.py`` (sizes of shares), ``models/utils.py`` (``sequence_parallel_chunk``),
``v1/worker/ubatching.py`` (offsets, from 0.33 on). Compared with vLLM's own recorder on constructed
batches; none of these layouts has run on devices, so captures under them are refused by default.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from tracer.errors import UnsupportedModelError

__all__ = ["OwnRows", "RowLayout", "own_rows"]


@dataclass(frozen=True, slots=True)
class OwnRows:
    """Where a rank's rows lie: ``[begin, end)``, its padding at the end included.

    gather: among the rows of all tensor-parallel peers, concatenated by rank; else among those
        that its own router saw
    """

    begin: int
    end: int
    gather: bool = False


def own_rows(
    num_seen: int, tokens_by_rank: Sequence[int], *, rank: int, dispatched: bool, shares: int
) -> OwnRows:
    """Find the rows of one data-parallel rank among those its router saw.

    Args:
        num_seen: rows of the router's output.
        tokens_by_rank: tokens of every data-parallel rank in this step or micro-batch, as padded.
        rank: this data-parallel rank.
        dispatched: rows of all ranks were gathered before routing, rank after rank.
        shares: tensor-parallel ranks that split a rank's tokens among them, each taking an equal
            run of them, the last ones padded; 1 where every one of them sees all tokens.

    Raises:
        UnsupportedModelError: so many rows cannot come from such a layout.
    """
    own = tokens_by_rank[rank]
    padded = [-(-tokens // shares) * shares for tokens in tokens_by_rank]
    expected = sum(padded) if dispatched else padded[rank] // shares
    if num_seen != expected:
        raise UnsupportedModelError(
            f"a router saw {num_seen} rows where {expected} were expected (tokens by"
            f" data-parallel rank {list(tokens_by_rank)}, {shares} shares,"
            f" {'gathered' if dispatched else 'local'})",
            "capture without data and expert parallelism.",
        )
    if not dispatched:
        return OwnRows(0, own, gather=shares > 1)
    begin = [0, *accumulate(padded)][rank]
    return OwnRows(begin, begin + own)


@dataclass(frozen=True, slots=True)
class RowLayout:
    """How one MoE layer's router is fed in this worker.

    runner: vLLM's ``MoERunner``; rank: data-parallel rank
    shares: tensor-parallel ranks that split the tokens; micro_batches: a step may be split
    """

    runner: Any
    rank: int
    ranks: int
    shares: int
    micro_batches: bool

    @classmethod
    def of(cls, config: Any, runner: Any) -> "RowLayout":
        """The layout of one layer.

        Args:
            config: ``vllm.config.VllmConfig``.
            runner: ``MoERunner`` of the layer.

        Raises:
            UnsupportedModelError: rows are split in a way that cannot be undone here.
        """
        parallel = config.parallel_config
        if getattr(parallel, "prefill_context_parallel_size", 1) > 1:
            raise UnsupportedModelError(
                "prefill context parallelism gives each rank some of a prompt's tokens",
                "leave --prefill-context-parallel-size at 1.",
            )
        micro_batches = bool(getattr(parallel, "use_ubatching", parallel.enable_dbo))
        if micro_batches:
            from vllm.v1.worker import ubatching

            if not hasattr(ubatching, "dbo_current_ubatch_token_offset"):
                raise UnsupportedModelError(
                    "this vLLM does not tell where a micro-batch begins",
                    "leave --enable-dbo and --ubatch-size off, or use vLLM 0.33.",
                )
        return cls(
            runner,
            rank=parallel.data_parallel_rank,
            ranks=parallel.data_parallel_size,
            shares=runner.moe_config.sp_size,
            micro_batches=micro_batches,
        )

    @property
    def plain(self) -> bool:
        """The router sees the rows of the batch, from the first on: nothing to restore."""
        return self.ranks == 1 and self.shares == 1 and not self.micro_batches

    @property
    def needs_peers(self) -> bool:
        """``restore`` may be collective: every tensor-parallel rank must call it."""
        return self.shares > 1

    def restore(self, *outputs: Any) -> tuple[tuple[Any, ...], int]:
        """This rank's rows of the router's outputs, called while a forward pass runs.

        Args:
            outputs: tensors [rows seen, ...] of one router call.

        Returns:
            The tensors [own rows, ...] in the order of the batch, and the row of the batch where
            they begin (not 0 in later micro-batches). At most as many rows as the batch has,
            padding included.

        Raises:
            UnsupportedModelError: the rows do not fit the layout.
        """
        from vllm.forward_context import get_forward_context

        metadata = get_forward_context().dp_metadata
        if metadata is not None:
            rows = own_rows(
                len(outputs[0]),
                metadata.num_tokens_across_dp_cpu.tolist(),
                rank=self.rank,
                dispatched=self.runner.do_naive_dispatch_combine,
                shares=self.shares,
            )
            if rows.gather:
                from vllm.distributed import get_tp_group

                group = get_tp_group()
                outputs = tuple(group.all_gather(output.contiguous(), 0) for output in outputs)
            outputs = tuple(output[rows.begin : rows.end] for output in outputs)
        return outputs, self._first_row()

    def _first_row(self) -> int:
        if not self.micro_batches:
            return 0
        from vllm.v1.worker.ubatching import dbo_current_ubatch_token_offset

        return int(dbo_current_ubatch_token_offset())
