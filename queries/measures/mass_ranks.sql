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
-- reads   expert_choices, expert_usage, experts
-- binds   none
-- yields  layer_id, expert_id, mass [sum of gate weights per token], mass_rank [1 = most],
--         degree [ties], centrality [sum of phi], centrality_rank [1 = most]
-- key     layer_id, expert_id
-- values  degree, centrality
-- jumps   degree
-- null    swaps
-- order   layer_id, mass_rank
with totals as (
    select layer_id, cast(count(*) as double) as num_tokens
    from expert_choices
    where rank = 1
    group by layer_id
),
masses as (
    select layer_id, expert_id, sum(weight_sum) as weight_sum
    from expert_usage
    group by layer_id, expert_id
),
shares as (
    select
        expert_choices.layer_id,
        expert_choices.expert_id,
        count(*) / max(totals.num_tokens) as share
    from expert_choices
    join totals on expert_choices.layer_id = totals.layer_id
    group by expert_choices.layer_id, expert_choices.expert_id
),
pairs as (
    select
        one.layer_id,
        one.expert_id,
        two.expert_id as other_expert_id,
        cast(count(*) as double) as num_tokens
    from expert_choices as one
    join expert_choices as two
        on one.request_id = two.request_id
        and one.position = two.position
        and one.layer_id = two.layer_id
        and one.expert_id <> two.expert_id
    group by one.layer_id, one.expert_id, two.expert_id
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
        coalesce(masses.weight_sum, 0) / totals.num_tokens as mass,
        coalesce(sums.degree, 0) as degree,
        coalesce(sums.centrality, 0) as centrality
    from experts
    join totals on experts.layer_id = totals.layer_id
    left join masses
        on experts.layer_id = masses.layer_id and experts.expert_id = masses.expert_id
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
