"""Reads routing recorded elsewhere: three files, checked whole before anything is committed.

`routing` (Parquet): request_id string, position int, token_id int, layer_id int,
expert_ids list<int>, gate_weights list<float>; one row per token and MoE layer.
`requests` (Parquet): request_id, domain, num_prompt_tokens; optional token_ids list<int>, one more
than the request has positions where the last token was sampled and never run; further columns
become labels.
`run` (JSON): model, num_experts, top_k, moe_layers; other keys of `runs` are taken over and
unknown ones kept in `runs.options`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tracer.errors import DamagedDataError, InputError
from tracer.records import GATE_WEIGHTS, UNKNOWN
from tracer.store.import_limits import Unpacked
from tracer.store.interchange_files import (
    digest_files,
    in_order,
    read_requests,
    read_routing,
    read_run,
    run_row,
)
from tracer.store.lake import Lake, check_run_id
from tracer.store.run_writer import chunks_by_choices, writing_run
from tracer.store.shard import ShardWriter
from tracer.store.shard_rows import ShardRows, TracedRequest

__all__ = ["UNKNOWN_TOKEN", "Reader", "import_run"]

Reader = Callable[[Mapping[str, Any], Mapping[str, dict[str, Any]]], pa.Table]

# Where a form has no token ids and `requests` gives none.
UNKNOWN_TOKEN = -1


def import_run(
    lake_path: Path | str,
    *,
    routing: Path,
    requests: Path,
    run: Path,
    run_id: str | None = None,
    weight_precision: str = "f32",
    read: Reader | None = None,
    files: Sequence[Path] = (),
    weights_known: bool = True,
    limit: Unpacked | None = None,
) -> dict[str, Any]:
    """Bring one run into the lake; the same files again change nothing.

    Args:
        lake_path: a lake, or where to make one.
        routing: a file, or a folder that ``read`` knows.
        requests: the file of that name.
        run: the file of that name.
        run_id: name of the run; None takes that of ``run``, else a digest.
        weight_precision: f32, or bf16 to round.
        read: makes the rows of routing, with `token_id` or without, from the row of `runs` and
            the requests by id; None reads the interchange form.
        files: those that ``routing`` stands for, where it is not a file.
        limit: of what the files unpack to, which ``read`` counts too.
        weights_known: false where ``read`` makes weights up; options of the run then say so.

    Returns:
        run_id, num_requests, num_rows.

    Raises:
        InputError: a file that cannot be read, or lacks a column or key.
        DamagedDataError: files that contradict each other or themselves; nothing is committed.
    """
    facts = read_run(run)
    if not weights_known:
        facts |= {GATE_WEIGHTS: UNKNOWN, "weight_convention": None}
    row = run_row(facts, weight_precision)
    row["dataset_digest"] = digest_files(*(files or [routing]), requests, run)
    row["run_id"] = check_run_id(
        run_id or str(facts.get("run_id") or f"import-{row['dataset_digest'][:12]}")
    )
    limit = limit or Unpacked()
    described = read_requests(requests, limit)
    table = read(row, described) if read else read_routing(routing, limit)
    table = in_order(routing, table, row)
    traces = _Traces(table, described, row)
    for group in traces.groups(traces.request_ids):
        traces.rows(group).check(row["num_experts"])
    lake = Lake.create(lake_path)
    writer = ShardWriter(lake.storage, row["run_id"], row["num_experts"], weight_precision)
    with writing_run(lake, row, _refuse_other_data) as target:
        todo = [request for request in traces.request_ids if request not in target.done]
        for batch, group in enumerate(traces.groups(todo), target.next_batch):
            shards = writer.write(f"{batch:06d}-i0", traces.rows(group))
            target.commit(batch, shards, [traces.request_row(request) for request in group])
    return {
        "run_id": row["run_id"],
        "num_requests": len(traces.request_ids),
        "num_rows": table.num_rows,
    }


def _refuse_other_data(stored: Mapping[str, Any], row: Mapping[str, Any]) -> None:
    if any(stored[key] != row[key] for key in ("dataset_digest", "weight_precision")):
        raise InputError(
            f"run {row['run_id']!r} is in the lake with other data or precision",
            "give another --run-id.",
        )


class _Traces:
    """The imported requests as arrays; checks that rows and requests fit together.

    Raises (when made):
        DamagedDataError: a request without rows or rows without a request.
    """

    def __init__(
        self, table: pa.Table, described: Mapping[str, dict[str, Any]], row: Mapping[str, Any]
    ) -> None:
        self._described = described
        self._layers: list[int] = row["moe_layers"]
        self._arrays = {
            name: table[name].to_numpy()
            for name in ("position", "token_id", "layer_id")
            if name in table.column_names
        }
        shape = (table.num_rows, row["top_k"])
        flat = {n: pc.list_flatten(table[n]).to_numpy() for n in ("expert_ids", "gate_weights")}
        self._ids = flat["expert_ids"].reshape(shape)
        self._weights = flat["gate_weights"].reshape(shape)
        self._rows = dict(self._spans(table["request_id"]))
        if unknown := set(self._rows) - set(described):
            raise DamagedDataError(f"routing has request {min(unknown)!r}, requests has not")
        if unrouted := set(described) - set(self._rows):
            raise DamagedDataError(f"requests has request {min(unrouted)!r}, routing has not")
        self.request_ids = list(described)

    @staticmethod
    def _spans(request_ids: pa.ChunkedArray) -> Iterator[tuple[str, slice]]:
        counts = pc.value_counts(request_ids.combine_chunks()).to_pylist()
        start = 0
        for entry in sorted(counts, key=lambda entry: str(entry["values"]).encode()):
            yield entry["values"], slice(start, start + entry["counts"])
            start += entry["counts"]

    def num_tokens(self, request_id: str) -> int:
        """Tokens that have routing."""
        span = self._rows[request_id]
        rows: int = span.stop - span.start
        return rows // len(self._layers)

    def groups(self, request_ids: Sequence[str]) -> Iterator[list[str]]:
        """The requests in order, as many together as make a shard."""
        lengths = ((request, self.num_tokens(request)) for request in request_ids)
        return chunks_by_choices(lengths, len(self._layers) * self._ids.shape[-1])

    def rows(self, request_ids: Sequence[str]) -> ShardRows:
        """Some requests as the shard writer takes them.

        Raises:
            DamagedDataError: a layer missing or not in moe_layers, a token recorded twice, or
                holes between positions.
        """
        requests = [self._traced(request_id) for request_id in request_ids]
        spans = [self._rows[request_id] for request_id in request_ids]
        shape = (-1, len(self._layers), self._ids.shape[-1])
        return ShardRows(
            self._layers,
            requests,
            np.concatenate([np.arange(one.num_rows, dtype=np.int32) for one in requests]),
            np.concatenate([self._ids[span] for span in spans]).reshape(shape),
            np.concatenate([self._weights[span] for span in spans]).reshape(shape),
        )

    def _traced(self, request_id: str) -> TracedRequest:
        span, count = self._rows[request_id], self.num_tokens(request_id)
        shape = (count, len(self._layers))
        position = self._arrays["position"][span]
        layers = self._arrays["layer_id"][span]
        whole = position.size == count * shape[1] and (
            (position.reshape(shape) == np.arange(count)[:, None]).all()
            and (layers.reshape(shape) == np.array(self._layers)).all()
        )
        if not whole:
            raise DamagedDataError(
                f"request {request_id!r} does not have each position from 0 once in every layer of"
                " moe_layers"
            )
        described = self._described[request_id]
        tokens = described["token_ids"]
        if tokens is None:
            tokens = np.full(count, UNKNOWN_TOKEN, dtype=np.int32)
        if "token_id" in self._arrays:
            routed = self._arrays["token_id"][span].reshape(shape)
            if (routed != routed[:, :1]).any():
                raise DamagedDataError(f"request {request_id!r} has two token ids at one position")
            tokens = routed[:, 0] if described["token_ids"] is None else tokens
            if (tokens[:count] != routed[: len(tokens), 0]).any():
                raise DamagedDataError(
                    f"request {request_id!r} has other token ids in routing than in requests"
                )
        if len(tokens) - count not in (0, 1):
            raise DamagedDataError(
                f"request {request_id!r} has {len(tokens)} token ids and {count} tokens"
                " with routing"
            )
        if not 0 <= described["num_prompt_tokens"] <= count:
            raise DamagedDataError(
                f"request {request_id!r} has {count} tokens and"
                f" {described['num_prompt_tokens']} prompt tokens"
            )
        return TracedRequest(
            request_id,
            described["domain"],
            described["num_prompt_tokens"],
            tokens,
            count,
        )

    def request_row(self, request_id: str) -> dict[str, Any]:
        """The row of `requests`."""
        described = self._described[request_id]
        prompt = described["num_prompt_tokens"]
        return {
            "request_id": request_id,
            "sample_index": 0,
            "row_id": request_id,
            "domain": described["domain"],
            "labels": described["labels"],
            "status": "complete",
            "num_prompt_tokens": prompt,
            "num_generated_tokens": len(self._traced(request_id).token_ids) - prompt,
            "cached_prefix_tokens": 0,
            "finish_reason": None,
            "prompt_digest": "",
            "prompt_text": None,
            "output_text": None,
        }
