-- mass_ranks: each expert's place by routing mass and by how it is tied to others.
--
-- Mass is the mean gate weight over all tokens, zeros counted. A tie is the phi coefficient of two
-- experts' choices over tokens, where it is above 0: chosen together more than independent ones.
-- A token's k experts differ, so by chance fewer than half of all pairs are tied.
-- The centrality of an expert is the sum of its ties, its degree their number. Counts of pairs do
-- not serve: they sum to k - 1 for every choice, so they repeat the load. An expert that no token
-- or every token chooses has no ties. Rank 1 is the largest, equal ones by expert id.
-- The null keeps every expert's load and mass and exchanges choices between tokens.
--
-- asks    Do the experts with most mass also hold the routing together?
-- source  INFORM (arXiv 2602.04291), which sets routing mass and interaction topology against
--         importance by gradients; this analogue on routed experts is ours. Neither is importance
-- reads   expert_pairs, expert_usage, experts, model
-- binds   none
-- yields  layer_id, expert_id, mass [sum of gate weights per token], mass_rank [1 = most],
--         degree [ties], centrality [sum of phi], centrality_rank [1 = most]
-- key     layer_id, expert_id
-- values  degree, centrality
-- jumps   degree
-- null    swaps
-- order   layer_id, mass_rank
with used as (
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
),
valued as (
    select
        experts.layer_id,
        experts.expert_id,
        coalesce(used.weight_sum, 0) / totals.num_tokens as mass,
        coalesce(sums.degree, 0) as degree,
        coalesce(sums.centrality, 0) as centrality
    from experts
    join totals on experts.layer_id = totals.layer_id
    left join used on experts.layer_id = used.layer_id and experts.expert_id = used.expert_id
    left join sums on experts.layer_id = sums.layer_id and experts.expert_id = sums.expert_id
),
ranked as (
    select
        layer_id,
        expert_id,
        mass,
        row_number() over (partition by layer_id order by mass desc, expert_id) as mass_rank,
        degree,
        centrality,
        row_number() over (partition by layer_id order by round(centrality, 12) desc, expert_id)
            as centrality_rank
    from valued
)
select layer_id, expert_id, mass, mass_rank, degree, centrality, centrality_rank
from ranked
order by layer_id, mass_rank
