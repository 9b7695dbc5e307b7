"""Finds every router of a loaded model and makes it write to the capture buffers.

With ``router_facts.py`` the only module that knows vLLM's MoE classes. Read from vLLM 0.26 to
0.33; the method that is shadowed, ``BaseRouter._compute_routing(hidden_states, router_logits,
indices_type, *, input_ids)``, has the same signature in all of them. It returns weights and
*logical* expert ids: it runs before the expert-parallel load balancer maps ids to physical
replicas.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from tracer.capture.buffer import RoutingBuffer, record, record_values
from tracer.capture.extras.extra import Extra, extras_of
from tracer.capture.layout import RowLayout
from tracer.capture.pack import pack
from tracer.capture.record_options import RecordOptions
from tracer.capture.router_facts import AttachedModel, describe_routers
from tracer.capture.row_format import Field, RowFormat, id_dtype
from tracer.errors import UnsupportedModelError

__all__ = ["Attached", "attach", "join_peers", "moe_runners"]


@dataclass(frozen=True, slots=True)
class Attached:
    """A model whose routers write to ``buffer``.

    facts: what all layers share; runners: decoder layer to vLLM ``MoERunner``, ascending
    """

    facts: AttachedModel
    buffer: RoutingBuffer
    runners: dict[int, Any]

    def detach(self) -> None:
        """Undo ``attach``: the routers' own methods show through again."""
        for runner in self.runners.values():
            vars(runner.router).pop("_compute_routing", None)
            if getattr(runner.router, "capture_fn", None) is _see_nothing:
                runner.router.capture_fn = None


def moe_runners(model: torch.nn.Module) -> dict[int, Any]:
    """MoE runners of the model by decoder layer, ascending."""
    from vllm.model_executor.layers.fused_moe.layer import MoERunner

    runners: dict[int, Any] = {}
    for module in model.modules():
        if isinstance(module, MoERunner):
            if module.layer_id in runners:
                raise UnsupportedModelError(
                    f"two routers call themselves layer {module.layer_id}",
                    "models with several routers in one layer cannot be captured yet.",
                )
            runners[module.layer_id] = module
    return dict(sorted(runners.items()))


def _refuse_uncapturable(layer_id: int, runner: Any) -> None:
    from vllm.model_executor.layers.fused_moe.router.base_router import BaseRouter

    if runner.is_monolithic:
        kernel = type(runner.routed_experts.quant_method).__name__
        raise UnsupportedModelError(
            f"layer {layer_id} routes inside a fused kernel ({kernel}), so its choices cannot"
            " be seen",
            "choose a modular kernel, for example --moe-backend triton.",
        )
    if getattr(runner.router, "num_fused_shared_experts", 0):
        raise UnsupportedModelError(
            f"layer {layer_id} routes to shared experts together with the others",
            "turn the fusion of shared experts off.",
        )
    if not isinstance(runner.router, BaseRouter):
        raise UnsupportedModelError(
            f"layer {layer_id} has an unknown router class {type(runner.router).__name__}",
            "captured are routers derived from vLLM's BaseRouter.",
        )


def attach(
    model: torch.nn.Module,
    config: Any,
    max_rows: int,
    device: torch.device,
    options: RecordOptions,
) -> Attached:
    """Shadow ``_compute_routing`` on every router of the model.

    Args:
        model: the loaded model of this worker.
        config: ``vllm.config.VllmConfig``.
        max_rows: most rows of one forward pass, padding included.
        device: where the routers run.
        options: what to record.

    Raises:
        UnsupportedModelError: no router, a fused-router kernel, or layers that differ.
        InputError: an extra that does not fit the model.
    """
    runners = moe_runners(model)
    if not runners:
        raise UnsupportedModelError(
            f"{type(model).__name__} has no MoE router (it is a dense model, or one whose MoE"
            " layers bypass vLLM's MoERunner)",
            "give a Mixture-of-Experts model; `tracer demo-model DIR` makes a small one.",
        )
    for layer_id, runner in runners.items():
        _refuse_uncapturable(layer_id, runner)
    facts = describe_routers(runners, model)
    extras = extras_of(options, facts)
    row_format = _row_format(facts, options, extras)
    buffer = RoutingBuffer.allocate(row_format, max_rows, device)
    for index, runner in enumerate(runners.values()):
        layout = RowLayout.of(config, runner)
        _shadow(runner.router, buffer, index, extras, layout)
    return Attached(facts, buffer, runners)


def _row_format(facts: AttachedModel, options: RecordOptions, extras: Sequence[Extra]) -> RowFormat:
    weight = torch.bfloat16 if options.weight_precision == "bf16" else torch.float32
    return RowFormat(
        len(facts.layer_ids),
        (
            Field("gate_weights", weight, facts.top_k),
            Field("expert_ids", id_dtype(facts.num_experts), facts.top_k),
            *(field for extra in extras for field in extra.fields),
            Field("position", torch.int32, 1, per_layer=False),
            Field("token_id", torch.int32, 1, per_layer=False),
        ),
    )


def join_peers(model: torch.nn.Module, config: Any) -> None:
    """On a rank that does not record: take part in what a recording peer has to gather.

    Args:
        model: the loaded model of this worker.
        config: ``vllm.config.VllmConfig``.
    """
    for runner in moe_runners(model).values():
        layout = RowLayout.of(config, runner)
        if layout.needs_peers:
            _shadow(runner.router, None, 0, (), layout)


def _shadow(
    router: Any,
    buffer: RoutingBuffer | None,
    layer: int,
    extras: Sequence[Extra],
    layout: RowLayout,
) -> None:
    compute_routing = router._compute_routing  # noqa: SLF001
    write = None if buffer is None else _writer(buffer, layer, extras)

    def compute_and_record(
        hidden_states: torch.Tensor,
        router_logits: torch.Tensor,
        indices_type: torch.dtype | None,
        *,
        input_ids: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        topk_weights, topk_ids = compute_routing(
            hidden_states, router_logits, indices_type, input_ids=input_ids
        )
        values: Sequence[torch.Tensor] = [topk_ids, topk_weights] + [
            value for extra in extras for value in extra.values(router, router_logits)
        ]
        first_row = 0
        if not layout.plain:
            values, first_row = layout.restore(*values)
        if write is not None:
            write(values, first_row)
        return topk_weights, topk_ids

    router._compute_routing = compute_and_record  # noqa: SLF001
    # Fused fronts of some models bypass the router's Python unless somebody listens to it
    # (vLLM 0.33, DeepSeek-V4.1 decode).
    if getattr(router, "capture_fn", _see_nothing) is None:
        router.capture_fn = _see_nothing


def _writer(
    buffer: RoutingBuffer, layer: int, extras: Sequence[Extra]
) -> Callable[[Sequence[torch.Tensor], int], None]:
    """Writes ids, weights and the extras' values of one layer from a row of the buffer on."""
    row_format = buffer.row_format
    further = [field for extra in extras for field in extra.fields]
    names = ["expert_ids", "gate_weights", *(field.name for field in further)]
    columns = [buffer.column(name, layer) for name in names]
    widths = [row_format.width(name) for name in names]
    traced = _traced_writer(buffer, layer, further)
    # Decoding repeats its shape, and slicing takes longer than copying a step of it.
    shapes: list[tuple[int, ...]] = []
    begin, views = 0, columns

    def write(values: Sequence[torch.Tensor], first_row: int) -> None:
        nonlocal shapes, begin, views
        if torch.compiler.is_compiling():
            _check_widths(values, widths)
            traced(values, first_row)
            return
        # Shapes are static: this runs where graphs are recorded, not when they run.
        new = [value.shape for value in values]
        if new != shapes or first_row != begin:
            _check_widths(values, widths)
            rows = len(values[0])
            views = [column[first_row : first_row + rows] for column in columns]
            shapes, begin = new, first_row
        pack(views[0], views[1], values[0], values[1])
        for view, value in zip(views[2:], values[2:], strict=True):
            view.copy_(value)

    return write


def _check_widths(values: Sequence[torch.Tensor], widths: Sequence[int]) -> None:
    seen = [value.shape[1] for value in values]
    if seen != widths:
        raise UnsupportedModelError(
            f"a router gave rows of {seen} values where {widths} were announced",
            "this model's routing cannot be recorded yet.",
        )


def _traced_writer(
    buffer: RoutingBuffer, layer: int, further: Sequence[Field]
) -> Callable[[Sequence[torch.Tensor], int], None]:
    """As ``_writer``, by the operators that compiled code keeps."""
    storage, place = buffer.storage, buffer.row_format.place
    ids_at, id_bytes = place("expert_ids", layer)
    weights_at, weight_bytes = place("gate_weights", layer)
    columns = [(place(field.name, layer)[0], field.dtype) for field in further]

    def write(values: Sequence[torch.Tensor], first_row: int) -> None:
        ids, weights, *others = values
        record(storage, ids, weights, ids_at, id_bytes, weights_at, weight_bytes, first_row)
        for (at, dtype), value in zip(columns, others, strict=True):
            record_values(storage, value, at, dtype, first_row)

    return write


def _see_nothing(topk_ids: torch.Tensor) -> None:
    """A listener that makes vLLM call the router, where it could do without."""
