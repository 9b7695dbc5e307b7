"""The rows of one run as they leave the lake: complete requests, a row group at a time.

Held for the whole run are its requests and its token ids, 4 bytes a token; of `routing` one row
group, which is one layer of one shard.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tracer.errors import DamagedDataError, InputError
from tracer.store.lake import Lake
from tracer.store.parquet_rows import RESTORE, row_groups_of_run, told_as_damage

__all__ = ["RoutingPart", "RunRows"]

_DESCRIBED = (
    "request_id",
    "domain",
    "labels",
    "status",
    "num_prompt_tokens",
    "num_generated_tokens",
    "cached_prefix_tokens",
)
_ROUTING = ("request_id", "position", "layer_id", "expert_ids", "gate_weights")


@dataclass(frozen=True, slots=True)
class RoutingPart:
    """Some rows of `routing`, of any requests.

    requests: int64 [n], places in ``RunRows.requests``
    positions: int32 [n]; layers: int16 [n]
    expert_ids: int16 [n, top_k]; gate_weights: float32 [n, top_k]
    """

    requests: npt.NDArray[np.int64]
    positions: npt.NDArray[np.int32]
    layers: npt.NDArray[np.int16]
    expert_ids: npt.NDArray[np.int16]
    gate_weights: npt.NDArray[np.float32]


class RunRows:
    """A run to be written elsewhere, in forms that have every position of a request from 0.

    run: its row of `runs`
    requests: rows of its complete requests, by request id; their places number them
    num_left_out: requests of any other status
    lengths: int64, tokens of each request
    token_ids: int32, of all requests one after another
    starts: int64, where those of each request begin

    Raises (when made):
        UnknownRunError: no such run.
        InputError: no complete request, or prompt tokens that the prefix cache answered.
        DamagedDataError: files gone or unreadable, or tokens that are not those of the requests.
    """

    def __init__(self, lake: Lake, run_id: str | None) -> None:
        self._lake = lake
        self.run: dict[str, Any] = lake.run(run_id)
        self.run_id: str = self.run["run_id"]
        every = lake.rows("requests", self.run_id, _DESCRIBED).to_pylist()
        self.requests = sorted(
            (row for row in every if row["status"] == "complete"),
            key=lambda row: str(row["request_id"]),
        )
        self.num_left_out = len(every) - len(self.requests)
        if not self.requests:
            raise InputError(f"run {self.run_id!r} has no complete requests")
        if cached := [row for row in self.requests if row["cached_prefix_tokens"]]:
            raise InputError(
                f"{len(cached)} requests of run {self.run_id!r} have prompt tokens that the prefix"
                f" cache answered, the first is {cached[0]['request_id']!r}; they have no routing"
                " rows, and this form has no place for holes",
                "record the run without prefix caching, or read it with `tracer sql`.",
            )
        self._numbers = {row["request_id"]: place for place, row in enumerate(self.requests)}
        self.lengths = np.array(
            [row["num_prompt_tokens"] + row["num_generated_tokens"] for row in self.requests],
            dtype=np.int64,
        )
        self.starts = np.concatenate([[0], np.cumsum(self.lengths)[:-1]])
        self.token_ids = self._token_ids()
        self._rows = np.zeros(len(self.requests), dtype=np.int64)
        self._last = np.full(len(self.requests), -1, dtype=np.int64)

    def tokens_of(self, number: int) -> npt.NDArray[np.int32]:
        """Token ids of a request, the last sampled one included."""
        start = self.starts[number]
        return self.token_ids[start : start + self.lengths[number]]

    def whole(self) -> npt.NDArray[np.bool_]:
        """Which requests have had all their rows in ``parts`` so far: bool [requests].

        The last sampled token of a capture has none, that of an import has.
        """
        layers = len(self.run["moe_layers"])
        ends = self._last + 1
        whole: npt.NDArray[np.bool_] = (self._rows == ends * layers) & (ends >= self.lengths - 1)
        return whole

    def num_routed(self, number: int) -> int:
        """Tokens of a whole request that have routing."""
        return int(self._last[number]) + 1

    def parts(
        self, done: Callable[[str], None], between: Callable[[], None] = lambda: None
    ) -> Iterator[RoutingPart]:
        """Every row of `routing` of the complete requests, once.

        Args:
            done: told each file.
            between: called behind each file, where requests may have become whole.

        Raises:
            DamagedDataError: files gone or unreadable, rows that fit no choice of the run, or a
                request without all its rows (at the end).
        """
        for path in self._lake.files("routing", self.run_id):
            with told_as_damage(path):
                for table in row_groups_of_run("routing", path, self.run_id, _ROUTING):
                    if (part := self._part(path, table)).requests.size:
                        yield part
            done(path)
            between()
        if not (whole := self.whole()).all():
            name = self.requests[int(np.argmin(whole))]["request_id"]
            raise DamagedDataError(
                f"request {name!r} does not have all its rows of routing",
                f"`tracer verify --run {self.run_id}` says more.",
            )

    def _part(self, path: str, table: pa.Table) -> RoutingPart:
        table = table.combine_chunks()
        if any(column.null_count for column in table.columns):
            raise DamagedDataError(f"{path} has empty values", RESTORE)
        numbers = self._numbered(table["request_id"])
        kept = numbers >= 0  # a crash may leave rows of requests that `requests` does not name
        if not kept.all():
            table, numbers = table.filter(pa.array(kept)), numbers[kept]
        top_k = self.run["top_k"]
        lists = {}
        for name in ("expert_ids", "gate_weights"):
            if not pc.all(pc.equal(pc.list_value_length(table[name]), top_k), min_count=0).as_py():
                raise DamagedDataError(f"{path}: not every {name} has {top_k} entries", RESTORE)
            lists[name] = pc.list_flatten(table[name]).to_numpy().reshape(-1, top_k)
        positions, layers = (table[name].to_numpy() for name in ("position", "layer_id"))
        if ((positions < 0) | (positions >= self.lengths[numbers])).any():
            raise DamagedDataError(f"{path} has positions that requests do not have", RESTORE)
        if not np.isin(layers, self.run["moe_layers"]).all():
            raise DamagedDataError(f"{path} has layers that are not in moe_layers", RESTORE)
        self._rows += np.bincount(numbers, minlength=len(self._rows))
        np.maximum.at(self._last, numbers, positions)
        return RoutingPart(numbers, positions, layers, lists["expert_ids"], lists["gate_weights"])

    def _numbered(self, request_ids: pa.ChunkedArray) -> npt.NDArray[np.int64]:
        """Place of each request; -1 where it is not among them."""
        coded = request_ids.combine_chunks().dictionary_encode()
        if isinstance(coded, pa.ChunkedArray):  # no rows
            return np.empty(0, dtype=np.int64)
        places = [self._numbers.get(name, -1) for name in coded.dictionary.to_pylist()]
        numbers: npt.NDArray[np.int64] = np.array(places, dtype=np.int64)[coded.indices.to_numpy()]
        return numbers

    def _token_ids(self) -> npt.NDArray[np.int32]:
        tokens = np.zeros(int(self.lengths.sum()), dtype=np.int32)
        seen = np.zeros(len(tokens), dtype=np.bool_)
        columns = ("request_id", "position", "token_id")
        for path in self._lake.files("tokens", self.run_id):
            with told_as_damage(path):
                for table in row_groups_of_run("tokens", path, self.run_id, columns):
                    numbers = self._numbered(table["request_id"])
                    kept = numbers >= 0
                    numbers, positions = numbers[kept], table["position"].to_numpy()[kept]
                    if ((positions < 0) | (positions >= self.lengths[numbers])).any():
                        raise DamagedDataError(f"{path} has tokens no request has", RESTORE)
                    places = self.starts[numbers] + positions
                    tokens[places] = table["token_id"].to_numpy()[kept]
                    seen[places] = True
        if not seen.all():
            place = int(np.searchsorted(self.starts, int(np.argmin(seen)), side="right")) - 1
            name = self.requests[place]["request_id"]
            raise DamagedDataError(f"request {name!r} does not have all its tokens", RESTORE)
        return tokens
