"""What an audit says beside chance, where draws were made: bands and intervals of charts, a table.

An audit without draws has nothing here, and the page says so.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Protocol

from tracer.records import Audit
from tracer.report.chart import Chart, Series, Table, finite

__all__ = [
    "Chance",
    "ChanceLayer",
    "Statistic",
    "chance_charts",
    "chance_layers",
    "chance_of",
    "chance_table",
    "specificity_table",
    "verdict_words",
    "with_chance",
]

_NULLS = {
    "experts": "by chance (expert ids exchanged in each domain)",
    "labels": "by chance (domains exchanged over requests)",
}
_NUMBERS = ("estimate", "low", "high", "chance", "chance_low", "chance_high", "p", "p_adjusted")


class Statistic(Protocol):
    """One number of a layer, its interval, and what it is by chance."""

    @property
    def statistic(self) -> str: ...  # noqa: D102
    @property
    def null(self) -> str: ...  # noqa: D102
    @property
    def estimate(self) -> float: ...  # noqa: D102
    @property
    def low(self) -> float: ...  # noqa: D102
    @property
    def high(self) -> float: ...  # noqa: D102
    @property
    def chance(self) -> float: ...  # noqa: D102
    @property
    def chance_low(self) -> float: ...  # noqa: D102
    @property
    def chance_high(self) -> float: ...  # noqa: D102
    @property
    def p_adjusted(self) -> float: ...  # noqa: D102


class ChanceLayer(Protocol):
    """One layer beside chance; members with their share of the draws."""

    @property
    def layer_id(self) -> int: ...  # noqa: D102
    @property
    def statistics(self) -> Sequence[Statistic]: ...  # noqa: D102
    @property
    def membership(self) -> Sequence[tuple[int, float]]: ...  # noqa: D102
    @property
    def specificity(self) -> Sequence["Specificity"]: ...  # noqa: D102
    @property
    def agreement(self) -> str: ...  # noqa: D102
    @property
    def differences(self) -> str: ...  # noqa: D102


class Specificity(Protocol):
    """Task specificity of one domain in one layer."""

    @property
    def domain(self) -> str: ...
    @property
    def num_requests(self) -> int: ...
    @property
    def specificity(self) -> Statistic: ...


class Chance(Protocol):
    """An audit beside chance: how it was drawn, its layers, the run's verdicts."""

    @property
    def draws(self) -> int: ...  # noqa: D102
    @property
    def seed(self) -> int: ...  # noqa: D102
    @property
    def level(self) -> float: ...  # noqa: D102
    @property
    def layers(self) -> Sequence[ChanceLayer]: ...  # noqa: D102
    @property
    def agreement(self) -> str: ...  # noqa: D102
    @property
    def differences(self) -> str: ...  # noqa: D102


def chance_of(audit: Audit) -> Chance | None:
    """What the audit's draws gave; None where none were made."""
    found: Chance | None = getattr(audit, "chance", None)
    return found


def chance_layers(audit: Audit) -> dict[int, ChanceLayer]:
    """The audit's layers beside chance, by layer; empty where no draws were made."""
    chance = chance_of(audit)
    return {layer.layer_id: layer for layer in chance.layers} if chance else {}


def verdict_words(chance: Chance) -> list[tuple[str, str]]:
    """What is claimed of the run, and of how many of its layers."""
    found = []
    for kind, name in (("agreement", "Agreement across"), ("differences", "Differences between")):
        verdict = str(getattr(chance, kind))
        same = sum(getattr(layer, kind) == verdict for layer in chance.layers)
        found.append((f"{name} domains", f"{verdict} ({same} of {len(chance.layers)} layers)"))
    return found


def with_chance(audit: Audit, chart: Chart, name: str, null: str = "experts") -> Chart:
    """The chart with an interval around its measured line and a line and band of chance.

    Args:
        audit: whose draws are taken; without any the chart stays as it is.
        chart: its first line with the look 'first' is the statistic.
        name: of the statistic.
        null: which chance.
    """
    chance = chance_of(audit)
    found = _along(audit, chart.layer_ids, name, null)
    if chance is None or not any(found):
        return chart
    level = f"{100 * chance.level:g} %"

    def line(number: str) -> tuple[float | None, ...]:
        return tuple(finite(getattr(one, number)) if one else None for one in found)

    by_chance = Series(
        _NULLS.get(null, f"by chance ({null})"),
        line("chance"),
        "third",
        line("chance_low"),
        line("chance_high"),
        f"middle {level}",
    )
    place = next(i for i, series in enumerate(chart.series) if series.look == "first")
    measured = dataclasses.replace(
        chart.series[place], low=line("low"), high=line("high"), band=f"{level} interval"
    )
    series = (*chart.series[:place], by_chance, measured, *chart.series[place + 1 :])
    return dataclasses.replace(chart, series=series)


def chance_charts(audit: Audit) -> list[Chart]:
    """Numbers that only an audit with draws has: how far domains lie apart."""
    layer_ids = tuple(sorted(layer.layer_id for layer in audit.layers))
    kinds = (
        (
            "eci_distance",
            Chart(
                "domain-distance",
                "Distance between domains, mean over pairs",
                "half the summed differences",
                layer_ids,
                floor=0,
                note="Of two domains' shares of contribution: 0 where they are alike, 1 where no"
                " expert is shared.",
            ),
        ),
        (
            "task_specificity",
            Chart(
                "task-specificity",
                "Task specificity, mean over domains",
                "\N{MINUS SIGN}1 to 1",
                layer_ids,
                note="COMMITTEEAUDIT Eq. 5 to 7: requests nearer to their own domain than to the"
                " others have values above 0.",
            ),
        ),
    )
    charts = []
    for name, chart in kinds:
        found = _along(audit, layer_ids, name, "labels")
        if any(found):
            values = tuple(finite(one.estimate) if one else None for one in found)
            measured = dataclasses.replace(chart, series=(Series("measured", values),))
            charts.append(with_chance(audit, measured, name, "labels"))
    return charts


def chance_table(layers: Iterable[ChanceLayer]) -> Table:
    """A row per layer and statistic."""
    rows: list[list[str | float | None]] = []
    for layer in layers:
        for one in layer.statistics:
            numbers = [finite(getattr(one, number, None)) for number in _NUMBERS]
            rows.append([layer.layer_id, one.statistic, one.null, *numbers])
    return {"columns": ["layer_id", "statistic", "null", *_NUMBERS], "rows": rows}


def specificity_table(layers: Iterable[ChanceLayer]) -> Table:
    """A row per layer and domain: task specificity, its interval, chance and p."""
    rows: list[list[str | float | None]] = []
    for layer in layers:
        for one in layer.specificity:
            numbers = [finite(getattr(one.specificity, number, None)) for number in _NUMBERS]
            rows.append([layer.layer_id, one.domain, one.num_requests, *numbers])
    return {"columns": ["layer_id", "domain", "num_requests", *_NUMBERS], "rows": rows}


def _along(audit: Audit, layer_ids: Sequence[int], name: str, null: str) -> list[Statistic | None]:
    layers = chance_layers(audit)
    return [
        next(
            (s for s in layers[layer_id].statistics if (s.statistic, s.null) == (name, null)), None
        )
        if layer_id in layers
        else None
        for layer_id in layer_ids
    ]
