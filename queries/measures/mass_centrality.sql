-- mass_centrality: the rank correlation of routing mass with ties between experts, by layer.
--
-- Mass and centrality are those of mass_ranks: mean gate weight over all tokens, and the sum of an
-- expert's positive phi coefficients with others of its layer. Spearman's correlation is over all
-- experts of the layer, equal ones share their mean rank; it has no value where either does not
-- vary. Near 1, mass also says who holds the routing together; near 0 the two are different
-- things. Loads alone tie the two, so compare with the null: it keeps every expert's load and
-- mass and exchanges choices between tokens.
--
-- asks    Is an expert's mass enough to tell how it is tied to others?
-- source  INFORM (arXiv 2602.04291) says that mass and other importance diverge; this analogue on
--         routed experts is ours
-- parts   expert_ties
-- reads   expert_pairs, expert_usage, experts, model
-- binds   none
-- yields  layer_id, num_experts [experts compared], num_ties [pairs with positive phi],
--         spearman [-1 to 1]
-- key     layer_id
-- values  num_ties, spearman
-- jumps   num_ties, spearman
-- null    swaps
-- order   layer_id
with valued as (
    select
        experts.layer_id,
        round(coalesce(used.weight_sum, 0), 9) as mass,
        coalesce(sums.degree, 0) as degree,
        round(coalesce(sums.centrality, 0), 12) as centrality
    from experts
    join totals on experts.layer_id = totals.layer_id
    left join used on experts.layer_id = used.layer_id and experts.expert_id = used.expert_id
    left join sums on experts.layer_id = sums.layer_id and experts.expert_id = sums.expert_id
),
ranked as (
    -- Equal values share the mean of their ranks; sums in another order differ in the last digits.
    select
        layer_id,
        degree,
        rank() over (partition by layer_id order by mass)
            + (count(*) over (partition by layer_id, mass) - 1) / cast(2 as double) as mass_rank,
        rank() over (partition by layer_id order by centrality)
            + (count(*) over (partition by layer_id, centrality) - 1) / cast(2 as double)
            as centrality_rank
    from valued
)
select
    layer_id,
    count(*) as num_experts,
    cast(sum(degree) / 2 as bigint) as num_ties,
    case
        when min(mass_rank) < max(mass_rank) and min(centrality_rank) < max(centrality_rank)
            then corr(mass_rank, centrality_rank)
    end as spearman
from ranked
group by layer_id
order by layer_id
