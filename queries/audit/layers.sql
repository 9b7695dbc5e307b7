-- audit/layers: listed contribution of each layer, the denominator of coverage.
--
-- reads   ranks (layer_id, domain, expert_id, contribution, rank), given by the audit
-- binds   $rank_cutoff: how deep each list goes
-- yields  layer_id, num_lists [domains with a row in the layer], listed_sum [contribution]
-- order   layer_id
select
    layer_id,
    count(distinct domain) as num_lists,
    coalesce(sum(contribution) filter (where rank <= $rank_cutoff), 0) as listed_sum
from ranks
group by layer_id
order by layer_id
