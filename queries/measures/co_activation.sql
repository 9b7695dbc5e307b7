-- co_activation: how often two experts of a layer are chosen for the same token.
--
-- All pairs of a token's k choices count. The share given an expert is asymmetric, so there is one
-- for each of the two. Phi is the correlation of the two 0/1 columns "chosen or not". Lift is the
-- joint share over the product of both experts' shares of tokens.
--
-- Chance is not independence: a token has exactly k choices, so one leaves less room for another.
-- Where all experts are chosen equally often, chance has a lift of E (k - 1) / (k (E - 1)), which
-- is below 1, and a phi of -1 / (E - 1). The null keeps how often each expert is chosen, so it is
-- right for unequal experts too. An expert that is never chosen has no share given it, no phi and
-- no lift. A model with k = 1 has no pairs.
--
-- asks    Which experts are chosen together, more or less often than by chance?
-- source  OLMoE (arXiv 2409.02060) Eq. 6 for the shares given an expert; its published code counts
--         only choices of neighbouring ranks, which co_activation_adjacent does
-- reads   expert_pairs, experts, model
-- binds   none
-- yields  layer_id, expert_id, second_expert_id, num_tokens [tokens that chose both],
--         joint_share [share of tokens], share_given_expert [share of the first one's tokens],
--         share_given_second [share of the second one's tokens], phi [-1 to 1],
--         lift [joint share over that of independent experts]
-- key     layer_id, expert_id, second_expert_id
-- values  share_given_expert, share_given_second, phi, lift
-- null    swaps
-- order   layer_id, expert_id, second_expert_id
with used as (
    -- An expert is in k - 1 pairs of each of its tokens; that saves a second look at all tokens.
    select
        sides.layer_id,
        sides.expert_id,
        sum(sides.num_tokens) / nullif(cast(max(model.top_k) - 1 as double), 0) as num_tokens
    from (
        select layer_id, expert_id, num_tokens
        from expert_pairs
        union all
        select layer_id, second_expert_id as expert_id, num_tokens
        from expert_pairs
    ) as sides
    cross join model
    group by sides.layer_id, sides.expert_id
),
totals as (
    select used.layer_id, sum(used.num_tokens) / cast(max(model.top_k) as double) as num_tokens
    from used
    cross join model
    group by used.layer_id
),
grid as (
    select
        first.layer_id,
        first.expert_id,
        second.expert_id as second_expert_id,
        cast(coalesce(expert_pairs.num_tokens, 0) as double) as both_chosen,
        cast(coalesce(first_used.num_tokens, 0) as double) as first_chosen,
        cast(coalesce(second_used.num_tokens, 0) as double) as second_chosen,
        totals.num_tokens as total
    from experts as first
    join experts as second
        on first.layer_id = second.layer_id and first.expert_id < second.expert_id
    join totals on first.layer_id = totals.layer_id
    left join used as first_used
        on first.layer_id = first_used.layer_id and first.expert_id = first_used.expert_id
    left join used as second_used
        on second.layer_id = second_used.layer_id and second.expert_id = second_used.expert_id
    left join expert_pairs
        on first.layer_id = expert_pairs.layer_id
        and first.expert_id = expert_pairs.expert_id
        and second.expert_id = expert_pairs.second_expert_id
)
select
    layer_id,
    expert_id,
    second_expert_id,
    cast(both_chosen as bigint) as num_tokens,
    both_chosen / total as joint_share,
    both_chosen / nullif(first_chosen, 0) as share_given_expert,
    both_chosen / nullif(second_chosen, 0) as share_given_second,
    (total * both_chosen - first_chosen * second_chosen)
        / nullif(
            sqrt(first_chosen * (total - first_chosen))
            * sqrt(second_chosen * (total - second_chosen)),
            0
        ) as phi,
    total * both_chosen / nullif(first_chosen * second_chosen, 0) as lift
from grid
order by layer_id, expert_id, second_expert_id
