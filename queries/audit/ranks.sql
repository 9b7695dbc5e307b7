-- audit/ranks: rank of each expert by contribution inside its domain and layer.
--
-- Equal contributions go by ascending expert id, experts that were chosen first. (torch.topk,
-- which the COMMITTEEAUDIT code uses, promises no order there.)
--
-- source  COMMITTEEAUDIT (arXiv 2601.03425 v2) Eq. 8
-- reads   contributions (layer_id, domain, expert_id, contribution), given by the audit
-- binds   $rank_cutoff: how deep each list goes
--         $num_fill: experts 0 .. $num_fill - 1 without a row are ranked with contribution 0;
--         0 ranks only those with a row
-- yields  layer_id, domain, expert_id, contribution, rank [1 = largest; $rank_cutoff + 1 below
--         the list]
-- order   layer_id, domain, rank, expert_id
with lists as (
    select distinct layer_id, domain
    from contributions
),
fill as (
    select layer_id, domain, unnest(range($num_fill)) as expert_id
    from lists
),
every as (
    select layer_id, domain, expert_id, contribution, false as filled
    from contributions
    union all
    select layer_id, domain, expert_id, 0, true
    from fill
    anti join contributions using (layer_id, domain, expert_id)
),
ordered as (
    select
        layer_id,
        domain,
        expert_id,
        contribution,
        filled,
        row_number() over (
            partition by layer_id, domain
            order by contribution desc, filled, expert_id
        ) as place
    from every
)
select
    layer_id,
    domain,
    expert_id,
    contribution,
    least(place, $rank_cutoff + 1)::integer as rank
from ordered
where not filled or place <= $rank_cutoff
order by layer_id, domain, rank, expert_id
