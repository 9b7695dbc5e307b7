-- committee_drift: how much of each layer's committee stays from one run to another.
--
-- Committees are those of `committee`, of each run by itself: experts that at least the share
-- min_presence of domains lists among its first, and that no other beats in rank mean and rank
-- variance. The Jaccard index is the share of the members of either that are members of both, 1 for
-- the same committee. Lists are short, so it moves in steps; the null, two samples of this run's
-- requests, says how small it becomes by the choice of requests alone. (To exchange the runs of
-- requests would mix two committees into two that are alike in neither.)
--
-- asks    Does the standing committee stay the same from one run to another?
-- source  COMMITTEEAUDIT (arXiv 2601.03425 v2) Eq. 8 to 12, of two runs; the index is our choice
-- parts   eci_of_runs
-- reads   expert_usage, other_expert_usage, experts, model, scoped_requests,
--         other_scoped_requests
-- binds   $min_presence = 0.8: least share of domains that must list a candidate.
--         $rank_cutoff = 0: how deep each domain's list goes; 0 takes the run's top-k.
-- yields  layer_id, size [members], other_size [members], kept [members of both],
--         gone [members of this run alone], come [members of the other run alone],
--         jaccard [share of all members that are of both]
-- key     layer_id
-- values  jaccard
-- jumps   jaccard
-- null    one_model
-- order   layer_id
with rules as (
    select case when $rank_cutoff > 0 then $rank_cutoff else top_k end as depth
    from model
),
ranked as (
    select
        contributions.run,
        contributions.layer_id,
        contributions.expert_id,
        row_number() over (
            partition by contributions.run, contributions.layer_id, contributions.domain
            order by contributions.eci desc, contributions.expert_id
        ) as place
    from contributions
),
listed as (
    select
        ranked.run,
        ranked.layer_id,
        ranked.expert_id,
        cast(count(*) as double) as num_listed,
        cast(sum(ranked.place) as double) as rank_sum,
        cast(sum(ranked.place * ranked.place) as double) as square_sum
    from ranked
    cross join rules
    where ranked.place <= rules.depth
    group by ranked.run, ranked.layer_id, ranked.expert_id
),
totals as (
    select
        listed.run,
        listed.layer_id,
        listed.expert_id,
        listed.num_listed,
        domains.num_domains,
        listed.rank_sum + (domains.num_domains - listed.num_listed) * (rules.depth + 1)
            as rank_sum,
        listed.square_sum
            + (domains.num_domains - listed.num_listed) * (rules.depth + 1) * (rules.depth + 1)
            as square_sum
    from listed
    join domains on listed.run = domains.run
    cross join rules
),
points as (
    select
        run,
        layer_id,
        expert_id,
        num_listed,
        num_domains,
        rank_sum / num_domains as rank_mean,
        (num_domains * square_sum - rank_sum * rank_sum) / (num_domains * num_domains)
            as rank_var
    from totals
),
thresholds as (
    select
        points.run,
        points.layer_id,
        least(
            max(points.num_listed),
            greatest(1, ceil(max(points.num_domains) * $min_presence - 1e-9))
        ) as least_listed
    from points
    group by points.run, points.layer_id
),
candidates as (
    select points.run, points.layer_id, points.expert_id, points.rank_mean, points.rank_var
    from points
    join thresholds on points.run = thresholds.run and points.layer_id = thresholds.layer_id
    where points.num_listed >= thresholds.least_listed
),
compared as (
    select
        one.run,
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
    join candidates as another on one.run = another.run and one.layer_id = another.layer_id
    group by one.run, one.layer_id, one.expert_id
),
members as (
    select
        compared.layer_id,
        compared.expert_id,
        max(case when compared.run = 1 then 1 else 0 end) as here,
        max(case when compared.run = 2 then 1 else 0 end) as there
    from compared
    where compared.beaten = 0
    group by compared.layer_id, compared.expert_id
),
counts as (
    select
        members.layer_id,
        sum(members.here) as size,
        sum(members.there) as other_size,
        sum(members.here * members.there) as kept
    from members
    group by members.layer_id
),
layers as (
    select distinct layer_id
    from experts
)
select
    layers.layer_id,
    cast(coalesce(counts.size, 0) as bigint) as size,
    cast(coalesce(counts.other_size, 0) as bigint) as other_size,
    cast(coalesce(counts.kept, 0) as bigint) as kept,
    cast(coalesce(counts.size - counts.kept, 0) as bigint) as gone,
    cast(coalesce(counts.other_size - counts.kept, 0) as bigint) as come,
    counts.kept / cast(counts.size + counts.other_size - counts.kept as double) as jaccard
from layers
left join counts on layers.layer_id = counts.layer_id
order by layers.layer_id
