"""Two audits, of two runs, side by side: who stayed in a committee, what became of coverage.

Expert ids are compared only where both runs are of the same model; between models an id means
nothing, so only numbers without ids stand beside each other.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from tracer.records import Audit, LayerAudit
from tracer.report.chart import Chart, Series, Table, finite

__all__ = ["Comparison", "LayerChange", "compare_audits", "comparison_charts", "comparison_table"]


@dataclass(frozen=True, slots=True)
class LayerChange:
    """One layer in both runs; numbers of a run without the layer are None.

    kept, gone, come: expert ids in both committees, in the other run's alone, in this run's alone
    """

    layer_id: int
    kept: tuple[int, ...]
    gone: tuple[int, ...]
    come: tuple[int, ...]
    size: int | None
    other_size: int | None
    coverage: float | None
    other_coverage: float | None
    lift: float | None
    other_lift: float | None

    @property
    def coverage_difference(self) -> float | None:
        """This run's coverage less the other's."""
        if self.coverage is None or self.other_coverage is None:
            return None
        return self.coverage - self.other_coverage

    @property
    def jaccard(self) -> float | None:
        """Overlap of the two committees; None where a run lacks the layer or both have none."""
        union = len(self.kept) + len(self.gone) + len(self.come)
        both = self.size is not None and self.other_size is not None
        return len(self.kept) / union if union and both else None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two audits of one mode and token scope.

    same_model: expert ids mean the same in both
    cautions: what else differs, so that a difference may come from it
    """

    run_id: str
    other_run_id: str
    same_model: bool
    cautions: tuple[str, ...]
    layers: tuple[LayerChange, ...]

    @property
    def summary(self) -> str:
        """What the comparison found, in plain words."""
        both = [x for x in self.layers if x.size is not None and x.other_size is not None]
        known = [x.coverage_difference for x in both if x.coverage_difference is not None]
        words = [f"{len(both)} layers are in both runs."]
        if self.same_model:
            kept, gone, come = (
                sum(len(getattr(x, name)) for x in both) for name in ("kept", "gone", "come")
            )
            same = sum(1 for x in both if not x.gone and not x.come)
            words.append(
                f"The committees are the same in {same} of them; of {kept + gone} members in"
                f" {self.other_run_id}, {kept} stayed in {self.run_id} and {gone} did not;"
                f" {come} joined."
            )
        if known:
            words.append(
                f"Coverage differs by {100 * min(known):+.1f} to {100 * max(known):+.1f}"
                " percentage points."
            )
        return " ".join(words)


def compare_audits(audit: Audit, other: Audit, *, same_model: bool) -> Comparison:
    """Lay two audits side by side, layer by layer.

    Args:
        audit: of the run the report is about.
        other: of the run it is compared with, in the same mode and token scope.
        same_model: whether both runs are of one model, so that expert ids mean the same.
    """
    same = same_model and audit.num_experts == other.num_experts
    mine = {layer.layer_id: layer for layer in audit.layers}
    theirs = {layer.layer_id: layer for layer in other.layers}
    return Comparison(
        run_id=audit.run_id,
        other_run_id=other.run_id,
        same_model=same,
        cautions=tuple(_cautions(audit, other)),
        layers=tuple(
            _change(layer_id, mine.get(layer_id), theirs.get(layer_id), same=same)
            for layer_id in sorted(mine.keys() | theirs.keys())
        ),
    )


def comparison_table(comparison: Comparison) -> Table:
    """A row per layer; columns of members only where ids mean the same."""
    columns = ["layer", "coverage", "other coverage", "difference", "lift", "other lift"]
    columns += ["size", "other size"]
    if comparison.same_model:
        columns += ["kept", "gone", "new", "Jaccard of committees"]
    rows: list[list[str | float | None]] = []
    for x in comparison.layers:
        row: list[str | float | None] = [x.layer_id, x.coverage, x.other_coverage]
        row += [x.coverage_difference, x.lift, x.other_lift, x.size, x.other_size]
        if comparison.same_model:
            row += [" ".join(map(str, ids)) for ids in (x.kept, x.gone, x.come)]
            row.append(x.jaccard)
        rows.append(row)
    return {"columns": columns, "rows": rows}


def comparison_charts(audit: Audit, other: Audit) -> list[Chart]:
    """Coverage and its lift over the equal-weight reference, both runs in one picture each."""
    comparison = compare_audits(audit, other, same_model=False)  # no ids in these
    ids = tuple(x.layer_id for x in comparison.layers)
    names = (audit.run_id, other.run_id)
    shown = (
        ("coverage", "share of listed contribution", True),
        ("lift", "times the equal-weight reference", False),
    )
    return [
        Chart(
            f"comparison-{name}",
            f"Coverage{'' if share else ' lift'} in both runs",
            unit,
            ids,
            tuple(
                Series(run_id, tuple(getattr(x, prefix + name) for x in comparison.layers), look)
                for run_id, prefix, look in zip(
                    names, ("", "other_"), ("first", "second"), strict=True
                )
            ),
            digits=3 if share else 2,
            share=share,
            floor=0,
            ceiling=1 if share else None,
        )
        for name, unit, share in shown
    ]


def _change(
    layer_id: int, mine: LayerAudit | None, theirs: LayerAudit | None, *, same: bool
) -> LayerChange:
    both = same and mine is not None and theirs is not None
    here = set(mine.committee) if mine and both else set()
    there = set(theirs.committee) if theirs and both else set()
    return LayerChange(
        layer_id,
        tuple(sorted(here & there)),
        tuple(sorted(there - here)),
        tuple(sorted(here - there)),
        len(mine.committee) if mine else None,
        len(theirs.committee) if theirs else None,
        finite(mine.coverage) if mine else None,
        finite(theirs.coverage) if theirs else None,
        _lift(mine),
        _lift(theirs),
    )


def _lift(layer: LayerAudit | None) -> float | None:
    if layer is None or not layer.coverage_equal_weight:
        return None
    return finite(layer.coverage / layer.coverage_equal_weight)


def _cautions(audit: Audit, other: Audit) -> list[str]:
    """What differs beside the runs themselves."""
    pairs: Mapping[str, tuple[object, object]] = {
        "the number of experts E": (audit.num_experts, other.num_experts),
        "the list depth k": (audit.rank_cutoff, other.rank_cutoff),
        "the presence threshold": (audit.presence_threshold, other.presence_threshold),
        "the domains": (
            {domain.domain for domain in audit.domains},
            {domain.domain for domain in other.domains},
        ),
        "the layers": (
            {layer.layer_id for layer in audit.layers},
            {layer.layer_id for layer in other.layers},
        ),
    }
    return [name for name, (mine, theirs) in pairs.items() if mine != theirs]
