"""The catalogue of measures: what the headers of ``queries/measures/*.sql`` say.

A header is the comment at the top of a file: ``-- name: meaning.``, paragraphs, then one field a
line, which may go on in indented lines:

    asks    the question that it answers
    source  where the formula is from (optional)
    parts   of ``queries/parts``, whose steps stand before its own (optional); what they read and
            bind, the measure names too
    reads   relations, of ``queries/inputs`` or with ``other_`` before them of a second run
    binds   $name = default: meaning; or none. A default that others may stand for has them behind
            it: $name = "a" or "b": meaning
    yields  columns, [unit] behind them
    key     the columns that tell rows apart
    values  the columns that get chance levels and intervals
    jumps   those of the values that lists, ranks, thresholds or groups stand behind, so that they
            move in jumps: intervals are plain percentiles (optional;
            ``tracer.analysis.intervals``)
    null    how relations are drawn at random (``tracer.analysis.measures.nulls``); or
            ``none: why``
    order   of the rows

A part has ``reads``, ``binds`` (no defaults), ``yields`` (its steps) and, where these read steps of
other parts, ``behind``: the parts that stand before it.
"""

import json
import math
import re
from dataclasses import dataclass
from functools import cache
from typing import Any

from tracer.analysis.sql import query_text, split_header
from tracer.errors import InputError
from tracer.schema import query_path

__all__ = ["Bind", "Column", "Measure", "measure_named", "measure_names"]

_FIELD = re.compile(
    r"-- (asks|source|parts|reads|binds|yields|key|values|jumps|null|order)  +(\S.*)"
)
_BIND = re.compile(r"\$(\w+) = (.+?): (.+)")
_COLUMN = re.compile(r"(\w+)(?: \[([^\]]*)\])?")
_RANGE = re.compile(r"(-?\d+) to (\d+)(?:/(\d+))?")
_DIFFERENCE = re.compile(r" - (?!mean\))| less |rise over|sum of phi|logits")
_SHARE = re.compile(
    r"(mean )?share of|(mean )?Jaccard|shared over|kept over|gate weight per"
    r"|mean largest probability|entropy over ln E|the same|mutual.information over"
)
_NO_NULL = "none: "


@dataclass(frozen=True, slots=True)
class Bind:
    """A parameter of a measure; its default is text or a number.

    choices: all that it may be, the default first; empty where anything of its type will do
    """

    name: str
    default: Any
    doc: str
    choices: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Column:
    """A column that a measure yields; ``unit`` is empty for ids and names."""

    name: str
    unit: str

    @property
    def bounds(self) -> tuple[float, float]:
        """Least and largest number that it can be, as the unit says; infinite where it does not.

        "0 to 1" says so itself; shares, Jaccard indices and gate weights are 0 to 1, cosines -1 to
        1, differences and changes have no bounds, and all else is 0 or more.
        """
        if match := _RANGE.search(self.unit):
            return float(match[1]), float(match[2]) / float(match[3] or 1)
        if "0 or less" in self.unit:
            return -math.inf, 0.0
        if _DIFFERENCE.search(self.unit):
            return -math.inf, math.inf
        if "cosine" in self.unit or "Spearman" in self.unit:
            return -1.0, 1.0
        return 0.0, 1.0 if _SHARE.match(self.unit) else math.inf


@dataclass(frozen=True, slots=True)
class Measure:
    """One file of ``queries/measures``.

    meaning: the first line of its header; doc: the paragraphs behind it
    jumps: of ``values``, those that have plain percentiles for intervals
    null: of ``nulls.NULLS``, or None for the reason in ``no_null``
    parts: of ``queries/parts``, in the order of their steps
    sql: the whole file, with the steps of its parts
    """

    name: str
    meaning: str
    doc: str
    asks: str
    source: str
    parts: tuple[str, ...]
    reads: tuple[str, ...]
    binds: tuple[Bind, ...]
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    values: tuple[str, ...]
    jumps: tuple[str, ...]
    null: str | None
    no_null: str
    order: str
    sql: str

    @property
    def compares(self) -> bool:
        """Whether it reads a second run."""
        return any(relation.startswith("other_") for relation in self.reads)

    def bounds_of(self, value: str) -> tuple[float, float] | None:
        """Bounds of one of ``values``; None where it moves in jumps."""
        if value in self.jumps:
            return None
        return next(column.bounds for column in self.columns if column.name == value)

    def bound(self, given: dict[str, Any]) -> dict[str, Any]:
        """Values of all binds.

        Raises:
            InputError: one that the measure does not have, or a value that it cannot take.
        """
        known = {bind.name: bind.default for bind in self.binds}
        if unknown := given.keys() - known.keys():
            raise InputError(
                f"measure {self.name!r} has no option {min(unknown)!r}",
                f"there are: {', '.join(known)}." if known else "it has none.",
            )
        for bind in self.binds:
            if bind.choices and given.get(bind.name, bind.default) not in bind.choices:
                raise InputError(
                    f"measure {self.name!r} has no {bind.name} {given[bind.name]!r}",
                    f"there are: {', '.join(map(str, bind.choices))}.",
                )
        return {**known, **given}


def measure_names() -> list[str]:
    """Names of all measures, ascending."""
    return sorted(path.stem for path in query_path("measures/any").parent.glob("*.sql"))


@cache
def measure_named(name: str) -> Measure:
    """The measure of ``queries/measures/<name>.sql``.

    Raises:
        InputError: there is none.
    """
    if name not in measure_names():
        raise InputError(f"no measure {name!r}", "`tracer query` lists them by their questions.")
    text = query_text(f"measures/{name}")
    header, _ = split_header(text)
    fields: dict[str, str] = {}
    doc: list[str] = []
    field = ""
    for line in header[1:]:
        if match := _FIELD.match(line):
            field = match[1]
            fields[field] = match[2]
        elif field:
            fields[field] += f" {line[2:].strip()}"
        else:
            doc.append(line[2:].strip())
    null = fields["null"]
    reason = null.removeprefix(_NO_NULL) if null.startswith(_NO_NULL) else ""
    return Measure(
        name=name,
        meaning=header[0].partition(": ")[2],
        doc="\n".join(doc).strip(),
        asks=fields["asks"],
        source=fields.get("source", ""),
        parts=_names(fields.get("parts", "none")),
        reads=_names(fields["reads"]),
        binds=_binds(fields["binds"]),
        columns=tuple(Column(*match) for match in _COLUMN.findall(fields["yields"])),
        key=_names(fields["key"]),
        values=() if fields["values"].startswith("none") else _names(fields["values"]),
        jumps=_names(fields.get("jumps", "none")),
        null=None if reason else null,
        no_null=reason,
        order=fields["order"],
        sql=text,
    )


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip() not in ("", "none"))


def _binds(text: str) -> tuple[Bind, ...]:
    found = re.split(r"\s+(?=\$\w+ = )", text)
    return tuple(
        _bind(match[1], [json.loads(value) for value in match[2].split(" or ")], match[3])
        for part in found
        if (match := _BIND.fullmatch(part))
    )


def _bind(name: str, values: list[Any], doc: str) -> Bind:
    return Bind(name, values[0], doc, tuple(values) if len(values) > 1 else ())
