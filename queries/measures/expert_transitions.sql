-- expert_transitions: which expert of the next MoE layer follows which of this one.
--
-- Of each token the first choice in a layer and the first choice in the next MoE layer. The share
-- is of the tokens whose first choice is the expert; the base share is of all tokens; lift is the
-- share over it. An expert with no tokens has no share. Ids mean nothing across layers: a table of
-- two layers is to be read row by row. A request prefers its own experts in every layer, which
-- links layers without any token's path; the null moves a layer's tokens within their request, on
-- its own for each layer, so what exceeds it is of tokens.
--
-- The first choice is that with the largest gate weight; a source without gate weights has no order
-- of choices.
--
-- asks    Can the next layer's expert be told from this layer's?
-- source  ExFlow (arXiv 2401.08383), there called affinity of experts between layers
-- reads   routed_tokens, experts
-- binds   none
-- yields  layer_id, next_layer_id, expert_id, next_expert_id, num_tokens [tokens with both],
--         share [share of the expert's tokens], base_share [share of all tokens],
--         lift [share over base share]
-- key     layer_id, expert_id, next_expert_id
-- values  share, lift
-- null    layers
-- order   layer_id, expert_id, next_expert_id
with next_layers as (
    select layer_id, lead(layer_id) over (order by layer_id) as next_layer_id
    from (select distinct layer_id from experts) as layers
),
steps as (
    select
        layer_id,
        expert_ids[1] as expert_id,
        lead(layer_id) over (partition by request_id, position order by layer_id) as next_layer_id,
        lead(expert_ids[1]) over (
            partition by request_id, position order by layer_id
        ) as next_expert_id
    from routed_tokens
),
counted as (
    select
        steps.layer_id,
        steps.expert_id,
        steps.next_expert_id,
        cast(count(*) as double) as num_tokens
    from steps
    join next_layers
        on steps.layer_id = next_layers.layer_id
        and steps.next_layer_id = next_layers.next_layer_id
    group by steps.layer_id, steps.expert_id, steps.next_expert_id
),
sources as (
    select layer_id, expert_id, sum(num_tokens) as num_tokens
    from counted
    group by layer_id, expert_id
),
targets as (
    select layer_id, next_expert_id, sum(num_tokens) as num_tokens
    from counted
    group by layer_id, next_expert_id
),
totals as (
    select layer_id, sum(num_tokens) as num_tokens
    from counted
    group by layer_id
),
shares as (
    select
        next_layers.layer_id,
        next_layers.next_layer_id,
        here.expert_id,
        there.expert_id as next_expert_id,
        coalesce(counted.num_tokens, 0) as num_tokens,
        case
            when sources.num_tokens > 0
                then coalesce(counted.num_tokens, 0) / sources.num_tokens
        end as share,
        coalesce(targets.num_tokens, 0) / totals.num_tokens as base_share
    from next_layers
    join experts as here on next_layers.layer_id = here.layer_id
    join experts as there on next_layers.next_layer_id = there.layer_id
    join totals on next_layers.layer_id = totals.layer_id
    left join sources
        on here.layer_id = sources.layer_id and here.expert_id = sources.expert_id
    left join targets
        on here.layer_id = targets.layer_id and there.expert_id = targets.next_expert_id
    left join counted
        on here.layer_id = counted.layer_id
        and here.expert_id = counted.expert_id
        and there.expert_id = counted.next_expert_id
)
select
    layer_id,
    next_layer_id,
    expert_id,
    next_expert_id,
    cast(num_tokens as bigint) as num_tokens,
    share,
    base_share,
    share / nullif(base_share, 0) as lift
from shares
order by layer_id, expert_id, next_expert_id
