-- co_activation_adjacent: how often two experts of a layer are chosen next to each other.
--
-- Only the k - 1 pairs of neighbouring ranks of a token count, of its choices by descending gate
-- weight: what OLMoE's published code counts, and not all pairs as its formula says
-- (co_activation). Without gate weights the order of choices is the engine's and the figures mean
-- little. The null gives experts, as often chosen as before, to other tokens and other ranks.
--
-- asks    Which experts stand next to each other in a token's order of choices?
-- source  OLMoE (arXiv 2409.02060) as published in allenai/OLMoE run_moe_analysis.py
-- reads   routed_tokens, ranks, experts
-- binds   none
-- yields  layer_id, expert_id, second_expert_id, num_tokens [tokens that chose both as neighbours],
--         share_given_expert [share of the first one's tokens],
--         share_given_second [share of the second one's tokens]
-- key     layer_id, expert_id, second_expert_id
-- values  share_given_expert, share_given_second
-- null    swaps
-- order   layer_id, expert_id, second_expert_id
with rank_pairs as (
    select lower_ranks.rank as one, higher_ranks.rank as two
    from ranks as lower_ranks
    join ranks as higher_ranks on lower_ranks.rank + 1 = higher_ranks.rank
),
counted as (
    select
        routed_tokens.layer_id,
        routed_tokens.expert_ids[rank_pairs.one] as one,
        routed_tokens.expert_ids[rank_pairs.two] as two,
        count(*) as num_tokens
    from routed_tokens
    cross join rank_pairs
    group by
        routed_tokens.layer_id,
        routed_tokens.expert_ids[rank_pairs.one],
        routed_tokens.expert_ids[rank_pairs.two]
),
together as (
    select
        layer_id,
        least(one, two) as expert_id,
        greatest(one, two) as second_expert_id,
        sum(num_tokens) as num_tokens
    from counted
    group by layer_id, least(one, two), greatest(one, two)
),
used as (
    select
        routed_tokens.layer_id,
        routed_tokens.expert_ids[ranks.rank] as expert_id,
        count(*) as num_tokens
    from routed_tokens
    cross join ranks
    group by routed_tokens.layer_id, routed_tokens.expert_ids[ranks.rank]
)
select
    first.layer_id,
    first.expert_id,
    second.expert_id as second_expert_id,
    cast(coalesce(together.num_tokens, 0) as bigint) as num_tokens,
    coalesce(together.num_tokens, 0) / cast(first_used.num_tokens as double) as share_given_expert,
    coalesce(together.num_tokens, 0) / cast(second_used.num_tokens as double) as share_given_second
from experts as first
join experts as second
    on first.layer_id = second.layer_id and first.expert_id < second.expert_id
left join used as first_used
    on first.layer_id = first_used.layer_id and first.expert_id = first_used.expert_id
left join used as second_used
    on second.layer_id = second_used.layer_id and second.expert_id = second_used.expert_id
left join together
    on first.layer_id = together.layer_id
    and first.expert_id = together.expert_id
    and second.expert_id = together.second_expert_id
order by first.layer_id, first.expert_id, second.expert_id
