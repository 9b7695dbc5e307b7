"""A deterministic, balanced choice of rows."""

from collections.abc import Iterable
from itertools import chain, islice, zip_longest

from tracer.records import DatasetRow

__all__ = ["take_round_robin"]


def take_round_robin(rows: Iterable[DatasetRow], limit: int) -> list[DatasetRow]:
    """Take ``limit`` rows, one from each group in turn, and all rows where there are fewer.

    A row's group is its ``subject`` label, else its domain. Groups come in sorted order, rows
    of a group in the order given; the result keeps the order of taking.
    """
    groups: dict[str, list[DatasetRow]] = {}
    for row in rows:
        group = groups.setdefault(row.labels.get("subject", row.domain), [])
        # No group can give more than `limit` rows; keeping only those bounds the memory.
        if len(group) < limit:
            group.append(row)
    turns = chain.from_iterable(zip_longest(*(groups[name] for name in sorted(groups))))
    return list(islice((row for row in turns if row is not None), limit))
