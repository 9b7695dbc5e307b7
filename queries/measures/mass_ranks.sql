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
-- parts   expert_ties
-- reads   expert_pairs, expert_usage, experts, model
-- binds   none
-- yields  layer_id, expert_id, mass [sum of gate weights per token], mass_rank [1 = most],
--         degree [ties], centrality [sum of phi], centrality_rank [1 = most]
-- key     layer_id, expert_id
-- values  degree, centrality
-- jumps   degree
-- null    swaps
-- order   layer_id, mass_rank
with valued as (
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
