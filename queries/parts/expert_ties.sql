-- parts/expert_ties: loads, gate weights and positive phi coefficients of experts, by layer.
--
-- reads   expert_pairs, expert_usage, model
-- binds   none
-- yields  used, totals, shares, pairs, ties, sums
-- order   none
used as (
    select
        layer_id,
        expert_id,
        cast(sum(num_choices) as double) as num_tokens,
        sum(weight_sum) as weight_sum
    from expert_usage
    group by layer_id, expert_id
),
totals as (
    select used.layer_id, sum(used.num_tokens) / max(model.top_k) as num_tokens
    from used
    cross join model
    group by used.layer_id
),
shares as (
    select used.layer_id, used.expert_id, used.num_tokens / totals.num_tokens as share
    from used
    join totals on used.layer_id = totals.layer_id
),
pairs as (
    select layer_id, expert_id, second_expert_id as other_expert_id, num_tokens
    from expert_pairs
    union all
    select layer_id, second_expert_id as expert_id, expert_id as other_expert_id, num_tokens
    from expert_pairs
),
ties as (
    select
        pairs.layer_id,
        pairs.expert_id,
        (pairs.num_tokens / totals.num_tokens - mine.share * theirs.share)
            / sqrt(mine.share * (1 - mine.share) * theirs.share * (1 - theirs.share)) as phi
    from pairs
    join totals on pairs.layer_id = totals.layer_id
    join shares as mine
        on pairs.layer_id = mine.layer_id and pairs.expert_id = mine.expert_id
    join shares as theirs
        on pairs.layer_id = theirs.layer_id and pairs.other_expert_id = theirs.expert_id
    where mine.share < 1 and theirs.share < 1
),
sums as (
    select layer_id, expert_id, count(*) as degree, sum(phi) as centrality
    from ties
    where phi > 0.000000000001
    group by layer_id, expert_id
)
