-- committee_coverage: how much of a layer's listed gate weight its committee takes.
--
-- The committee is that of the measure committee. Coverage is the members' share of the ECI that
-- the domains' lists hold, not of all gate weight. If all listed weights were equal and the members
-- always listed, it would be |C| / k: a reference that mostly restates the size, and no chance
-- level. Lift is coverage over it. Influence density is the mean share of a member over that of
-- any other expert, with the reference (E - |C|) / (k - |C|). Both are empty, for infinite, where
-- nothing is left for the others, as it may be in draws: so the inverse, 0 there, has the interval
-- and the chance. Those of the density are one over its bounds, and one over its mean is the
-- harmonic mean, as `tracer audit` has them. The null renames experts in each domain on its own:
-- domains agree by chance.
--
-- asks    How much of the routing does the committee of a layer take?
-- source  COMMITTEEAUDIT (arXiv 2601.03425 v2) Table 5 and Eq. 12; the lift is ours
-- reads   expert_usage, experts, model, scoped_requests
-- binds   $min_presence = 0.8: least share of domains that must list a candidate.
--         $rank_cutoff = 0: how deep each domain's list goes; 0 takes the run's top-k.
-- yields  layer_id, num_candidates [experts], fallback [boolean, no expert had the presence],
--         size [members], coverage [share of listed ECI],
--         coverage_equal_weight [the same if weights were equal],
--         coverage_lift [coverage over it], influence_density [member share over other's],
--         inverse_density [other's share over member's],
--         influence_density_equal_weight [density if weights were equal]
-- key     layer_id
-- values  size, coverage, coverage_lift, inverse_density
-- jumps   size, coverage, coverage_lift, inverse_density
-- null    experts
-- order   layer_id
with rules as (
    select
        num_experts,
        top_k,
        case when $rank_cutoff > 0 then $rank_cutoff else top_k end as depth
    from model
),
domains as (
    select count(distinct domain) as num_domains
    from scoped_requests
),
used as (
    select
        layer_id,
        domain,
        expert_id,
        sum(num_choices) as num_choices,
        sum(weight_sum) as weight_sum
    from expert_usage
    group by layer_id, domain, expert_id
),
sizes as (
    select used.layer_id, used.domain, sum(used.num_choices) as num_choices
    from used
    group by used.layer_id, used.domain
),
contributions as (
    select
        used.layer_id,
        used.domain,
        used.expert_id,
        used.weight_sum / (cast(sizes.num_choices as double) / rules.top_k) as eci
    from used
    join sizes on used.layer_id = sizes.layer_id and used.domain = sizes.domain
    cross join rules
),
ranked as (
    select
        contributions.layer_id,
        contributions.domain,
        contributions.expert_id,
        contributions.eci,
        row_number() over (
            partition by contributions.layer_id, contributions.domain
            order by contributions.eci desc, contributions.expert_id
        ) as place
    from contributions
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
),
layers as (
    select
        points.layer_id,
        sum(case when compared.beaten is null then 0 else 1 end) as num_candidates,
        sum(case when compared.beaten = 0 then 1 else 0 end) as size,
        sum(case when compared.beaten = 0 then points.listed_sum else 0 end) as member_sum,
        sum(points.listed_sum) as listed_sum
    from points
    left join compared
        on points.layer_id = compared.layer_id and points.expert_id = compared.expert_id
    group by points.layer_id
),
shares as (
    select
        layers.layer_id,
        layers.num_candidates,
        thresholds.fallback,
        cast(layers.size as double) as size,
        case
            when layers.listed_sum > 0 then layers.member_sum / layers.listed_sum else 0
        end as coverage,
        rules.num_experts,
        cast(rules.depth as double) as depth
    from layers
    join thresholds on layers.layer_id = thresholds.layer_id
    cross join rules
)
select
    layer_id,
    cast(num_candidates as bigint) as num_candidates,
    fallback,
    cast(size as bigint) as size,
    coverage,
    size / depth as coverage_equal_weight,
    coverage / nullif(size / depth, 0) as coverage_lift,
    case
        when size = 0 or size >= num_experts then 1
        when 1 - coverage >= 1e-12
            then coverage / size / ((1 - coverage) / (num_experts - size))
    end as influence_density,
    case
        when size = 0 or size >= num_experts then 1
        when 1 - coverage < 1e-12 then 0
        else (1 - coverage) / (num_experts - size) / nullif(coverage / size, 0)
    end as inverse_density,
    case
        when size < depth then (num_experts - size) / (depth - size)
    end as influence_density_equal_weight
from shares
order by layer_id
