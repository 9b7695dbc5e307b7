-- audit/overlaps: Jaccard index of the listed experts of every two domains of a layer.
--
-- source  COMMITTEEAUDIT (arXiv 2601.03425 v2) Eq. 13
-- reads   ranks (layer_id, domain, expert_id, contribution, rank), given by the audit
-- binds   $rank_cutoff: how deep each list goes
-- yields  layer_id, domain_a, domain_b [after domain_a], jaccard [0 to 1]
-- order   layer_id, domain_a, domain_b
with lists as (
    select layer_id, domain, list(expert_id) as expert_ids
    from ranks
    where rank <= $rank_cutoff
    group by layer_id, domain
),
pairs as (
    select
        a.layer_id,
        a.domain as domain_a,
        b.domain as domain_b,
        len(list_intersect(a.expert_ids, b.expert_ids)) as num_shared,
        len(a.expert_ids) + len(b.expert_ids) as num_both
    from lists as a
    join lists as b on a.layer_id = b.layer_id and a.domain < b.domain
)
select layer_id, domain_a, domain_b, num_shared / (num_both - num_shared) as jaccard
from pairs
order by layer_id, domain_a, domain_b
