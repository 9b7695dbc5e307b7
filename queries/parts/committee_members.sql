-- parts/committee_members: each expert's ranks over domains, and which candidates another beats.
--
-- A candidate that none beats is a member of its layer's committee.
--
-- behind  domain_eci, domain_lists
-- reads   experts, scoped_requests
-- binds   $min_presence
-- yields  domains, sums, counts, totals, points, thresholds, candidates, compared
-- order   none
domains as (
    select count(distinct domain) as num_domains
    from scoped_requests
),
sums as (
    select
        ranked.layer_id,
        ranked.expert_id,
        sum(ranked.eci) as eci_sum,
        sum(case when ranked.place <= rules.depth then 1 else 0 end) as num_listed,
        sum(case when ranked.place <= rules.depth then ranked.place else 0 end) as rank_sum,
        sum(case when ranked.place <= rules.depth then ranked.place * ranked.place else 0 end)
            as square_sum,
        sum(case when ranked.place <= rules.depth then ranked.eci else 0 end) as listed_sum
    from ranked
    cross join rules
    group by ranked.layer_id, ranked.expert_id
),
counts as (
    select
        experts.layer_id,
        experts.expert_id,
        domains.num_domains,
        rules.depth + 1 as last_rank,
        coalesce(sums.num_listed, 0) as num_listed,
        coalesce(sums.rank_sum, 0) as rank_sum,
        coalesce(sums.square_sum, 0) as square_sum,
        coalesce(sums.eci_sum, 0) as eci_sum,
        coalesce(sums.listed_sum, 0) as listed_sum
    from experts
    cross join domains
    cross join rules
    left join sums
        on experts.layer_id = sums.layer_id and experts.expert_id = sums.expert_id
),
totals as (
    select
        layer_id,
        expert_id,
        num_domains,
        num_listed,
        eci_sum,
        listed_sum,
        cast(rank_sum + (num_domains - num_listed) * last_rank as double) as rank_sum,
        cast(square_sum + (num_domains - num_listed) * last_rank * last_rank as double)
            as square_sum
    from counts
),
points as (
    select
        layer_id,
        expert_id,
        num_domains,
        num_listed,
        eci_sum,
        listed_sum,
        rank_sum / num_domains as rank_mean,
        (num_domains * square_sum - rank_sum * rank_sum) / (num_domains * num_domains)
            as rank_var
    from totals
),
thresholds as (
    select
        points.layer_id,
        least(
            max(points.num_listed),
            greatest(1, ceil(max(points.num_domains) * $min_presence - 1e-9))
        ) as least_listed,
        max(points.num_listed) < greatest(1, ceil(max(points.num_domains) * $min_presence - 1e-9))
            as fallback
    from points
    group by points.layer_id
),
candidates as (
    select points.layer_id, points.expert_id, points.rank_mean, points.rank_var
    from points
    join thresholds on points.layer_id = thresholds.layer_id
    where points.num_listed > 0 and points.num_listed >= thresholds.least_listed
),
compared as (
    select
        one.layer_id,
        one.expert_id,
        max(
            case
                when another.rank_mean <= one.rank_mean
                    and another.rank_var <= one.rank_var
                    and (another.rank_mean < one.rank_mean or another.rank_var < one.rank_var)
                    then 1
                else 0
            end
        ) as beaten
    from candidates as one
    join candidates as another on one.layer_id = another.layer_id
    group by one.layer_id, one.expert_id
)
