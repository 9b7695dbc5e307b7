"""Whether runs are such that a measure can be taken of them."""

from collections.abc import Mapping, Sequence

from tracer.analysis.measures.catalogue import Measure
from tracer.analysis.measures.inputs import OTHER, has_gate_weights
from tracer.errors import InputError

__all__ = ["check_runs"]

_WEIGHTS = ("gate_weight", "weight_sum")
_SHAPE = {"num_experts": "experts per layer", "top_k": "top-k", "moe_layers": "MoE layers"}


def check_runs(measure: Measure, runs: Sequence[Mapping[str, object]]) -> list[str]:
    """Refuse runs that ``measure`` cannot be taken of; returns notes on those it can.

    Args:
        measure: of the catalogue.
        runs: rows of `runs`, one or two.

    Raises:
        InputError: a second run missing or too many, runs of other sizes, or without gate weights.
    """
    if measure.compares != (len(runs) > 1):
        raise InputError(
            f"measure {measure.name!r} takes {'two runs' if measure.compares else 'one run'}",
            f"{'name the second with' if measure.compares else 'leave out'} --other-run.",
        )
    weighted = any(word in measure.sql for word in _WEIGHTS)
    if weighted and not all(has_gate_weights(run) for run in runs):
        raise InputError(
            f"measure {measure.name!r} is made of gate weights, which the run's source did not"
            " have",
            "`tracer query` lists measures that count choices alone.",
        )
    return _compared(measure, *runs) if measure.compares else []


def _compared(
    measure: Measure, run: Mapping[str, object], other: Mapping[str, object]
) -> list[str]:
    """Refuses runs whose experts cannot be those of one model; notes names that differ.

    A measure that reads the second run's `model` copes with another size: it compares no ids.
    """
    if f"{OTHER}model" in measure.reads:
        return []
    for name, words in _SHAPE.items():
        if run[name] != other[name]:
            raise InputError(
                f"the runs differ in {words}: {run[name]} and {other[name]}",
                f"measure {measure.name!r} compares expert by expert: take runs of one model.",
            )
    if run["model"] == other["model"]:
        return []
    note = "expert ids mean the same only in checkpoints or variants of one model"
    return [f"The runs name two models, {run['model']} and {other['model']}: {note}."]
