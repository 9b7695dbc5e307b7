"""Facts of gate weights, read from vLLM's own routers; those that only GPUs use among them."""

import functools
from types import SimpleNamespace

import pytest
import torch

from tracer.capture.router_facts import describe_routers
from tracer.errors import UnsupportedModelError

pytestmark = pytest.mark.engine

COMMON = {"top_k": 2, "global_num_experts": 8}


def runner(router, *, factor=1.0, experts=8, on_input=False):
    """The fields of vLLM's MoERunner that facts are read from, around a real router."""
    return SimpleNamespace(
        router=router,
        routed_scaling_factor=factor,
        moe_config=SimpleNamespace(num_logical_experts=experts),
        routed_experts=SimpleNamespace(apply_router_weight_on_input=on_input),
    )


def cpu_router(**options):
    from vllm.model_executor.layers.fused_moe.router.cpu_router import CPURouter

    return CPURouter(**COMMON, **options)


def grouped_router(**options):
    from vllm.model_executor.layers.fused_moe.router.grouped_topk_router import GroupedTopKRouter

    return GroupedTopKRouter(**COMMON, num_expert_group=4, topk_group=2, **options)


def biased_router(**options):
    from vllm.model_executor.layers.fused_moe.router.fused_topk_bias_router import (
        FusedTopKBiasRouter,
    )

    return FusedTopKBiasRouter(**COMMON, **options)


def plain_router(**options):
    from vllm.model_executor.layers.fused_moe.router.fused_topk_router import FusedTopKRouter

    return FusedTopKRouter(**COMMON, **options)


def custom_router(function, **options):
    from vllm.model_executor.layers.fused_moe.router.custom_routing_router import (
        CustomRoutingRouter,
    )

    return CustomRoutingRouter(**COMMON, custom_routing_function=function, **options)


def meaning(facts):
    return facts.scoring_function, facts.renormalised


def test_a_plain_router_has_neither_factor_nor_groups_nor_bias():
    facts = describe_routers({3: runner(plain_router(renormalize=False))})
    assert facts.layer_ids == (3,)
    assert (facts.num_experts, facts.top_k) == (8, 2)
    assert meaning(facts) == ("softmax", False)
    assert (facts.routed_scaling_factor, facts.weights_scaled) == (1.0, False)
    assert (facts.num_expert_groups, facts.num_chosen_groups) == (1, 1)
    assert not facts.selection_bias


@pytest.mark.parametrize("make", [grouped_router, functools.partial(
    cpu_router, use_grouped_topk=True, num_expert_group=4, topk_group=2)])  # fmt: skip
def test_a_grouped_router_multiplies_by_its_factor(make):
    """The weights themselves say so: renormalised, they sum to the factor."""
    bias = torch.linspace(0, 1, 8)
    router = make(scoring_func="sigmoid", routed_scaling_factor=2.5, e_score_correction_bias=bias)
    facts = describe_routers({0: runner(router)})
    assert meaning(facts) == ("sigmoid", True)
    assert (facts.routed_scaling_factor, facts.weights_scaled) == (2.5, True)
    assert (facts.num_expert_groups, facts.num_chosen_groups) == (4, 2)
    assert facts.selection_bias
    weights, _ = router._compute_routing(torch.ones(3, 4), torch.randn(3, 8), None)
    assert weights.sum(-1).tolist() == pytest.approx([2.5] * 3)


def test_a_factor_on_the_output_is_not_in_the_weights():
    router = grouped_router(scoring_func="softmax", renormalize=False)
    facts = describe_routers({0: runner(router, factor=16.0)})
    assert (facts.routed_scaling_factor, facts.weights_scaled) == (16.0, False)


def test_a_router_with_a_bias_alone_has_no_groups():
    router = biased_router(
        scoring_func="sigmoid", e_score_correction_bias=torch.ones(8), routed_scaling_factor=1.5
    )
    facts = describe_routers({0: runner(router)})
    assert meaning(facts) == ("sigmoid", True)
    assert (facts.routed_scaling_factor, facts.weights_scaled) == (1.5, True)
    assert facts.selection_bias
    assert (facts.num_expert_groups, facts.num_chosen_groups) == (1, 1)


def test_routing_functions_of_models_are_known_by_name():
    from vllm.model_executor.models.cohere2_moe import token_choice_with_bias
    from vllm.model_executor.models.llama4 import Llama4MoE
    from vllm.model_executor.models.phimoe import phimoe_routing_function

    llama = custom_router(Llama4MoE.custom_routing_function, renormalize=False)
    facts = describe_routers({0: runner(llama, on_input=True)})
    assert meaning(facts) == ("sigmoid", False)
    assert facts.weights_on_input
    for renormalise in (True, False):
        for router in (
            custom_router(token_choice_with_bias, renormalize=renormalise),
            cpu_router(custom_routing_function=token_choice_with_bias, renormalize=renormalise),
        ):
            assert meaning(describe_routers({0: runner(router)})) == ("sigmoid", renormalise)
    phi = cpu_router(custom_routing_function=phimoe_routing_function, renormalize=False)
    assert meaning(describe_routers({0: runner(phi)})) == ("sparsemixer", False)


def test_a_routing_function_nobody_knows_is_not_guessed():
    def own(hidden_states, gating_output, topk, renormalize):
        return gating_output.topk(topk)

    for function in (own, functools.partial(own, topk=2)):
        facts = describe_routers({0: runner(custom_router(function))})
        assert meaning(facts) == ("custom", None)


def test_redundant_copies_of_experts_are_not_counted():
    facts = describe_routers({0: runner(plain_router(), experts=6)})
    assert facts.num_experts == 6


def test_layers_that_differ_are_refused():
    runners = {
        0: runner(plain_router(renormalize=True)),
        1: runner(plain_router(renormalize=False)),
    }
    with pytest.raises(UnsupportedModelError, match="layers differ in scoring function"):
        describe_routers(runners)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"e_score_correction_bias": torch.ones(8)}, "selection bias"),
        ({"routed_scaling_factor": 2.0}, "scaling factor"),
    ],
)
def test_what_the_cpu_router_leaves_out_is_refused(options, what):
    """Its weights and ids are the same with and without, so the model's routing is another."""
    logits = torch.randn(5, 8)
    router = cpu_router(**options)
    got, without = (r._compute_routing(None, logits, None) for r in (router, cpu_router()))
    assert all(torch.equal(a, b) for a, b in zip(got, without, strict=True))
    with pytest.raises(UnsupportedModelError, match=f"layer 7: .* ignores the router's {what}"):
        describe_routers({7: runner(router)})


def test_a_bias_of_zeros_leaves_nothing_out():
    router = cpu_router(e_score_correction_bias=torch.zeros(8))
    assert meaning(describe_routers({0: runner(router)})) == ("softmax", True)
