-- audit/experts: over domains, how often each expert is listed, and its rank's mean and variance.
--
-- Not listed counts as rank $rank_cutoff + 1, also in domains without a row in the layer. Mean and
-- variance come from whole numbers, so equal ranks in another order give equal values.
--
-- source  COMMITTEEAUDIT (arXiv 2601.03425 v2) Eq. 9 and 11, Eq. 14 for contribution_mean
-- reads   ranks (layer_id, domain, expert_id, contribution, rank), given by the audit
-- binds   $rank_cutoff: how deep each list goes
--         $num_domains: n of every mean
-- yields  layer_id, expert_id, num_listed [domains], listed_ranks [list, by domain], rank_mean,
--         rank_var [population], listed_mean [listed contributions / n],
--         contribution_mean [all contributions / n]
-- order   layer_id, expert_id
with sums as (
    select
        layer_id,
        expert_id,
        count(*) filter (where rank <= $rank_cutoff) as num_listed,
        list(rank order by domain) filter (where rank <= $rank_cutoff) as listed_ranks,
        sum(least(rank, $rank_cutoff + 1)) as rank_sum,
        sum(least(rank, $rank_cutoff + 1) ** 2)::bigint as square_sum,
        $num_domains - count(*) as num_without,
        coalesce(sum(contribution) filter (where rank <= $rank_cutoff), 0) as listed_sum,
        sum(contribution) as contribution_sum
    from ranks
    group by layer_id, expert_id
),
totals as (
    select
        layer_id,
        expert_id,
        num_listed,
        coalesce(listed_ranks, []) as listed_ranks,
        (rank_sum + num_without * ($rank_cutoff + 1))::bigint as rank_sum,
        (square_sum + num_without * ($rank_cutoff + 1) ** 2)::bigint as square_sum,
        listed_sum,
        contribution_sum
    from sums
)
select
    layer_id,
    expert_id,
    num_listed,
    listed_ranks,
    rank_sum / $num_domains as rank_mean,
    ($num_domains * square_sum - rank_sum * rank_sum) / ($num_domains * $num_domains) as rank_var,
    listed_sum / $num_domains as listed_mean,
    contribution_sum / $num_domains as contribution_mean
from totals
order by layer_id, expert_id
