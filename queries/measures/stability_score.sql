-- stability_score: how strongly, and in how many domains, an expert stands in the lists.
--
-- A domain's list is its first k experts by ECI, equal ones by id. The score is the number of
-- domains that list the expert times its mean ECI in those, which is the sum of its listed ECI. It
-- presents experts and chooses none: members are those of the measure committee. Mean and
-- deviation are empty where no domain lists the expert. The published values sum to more than an
-- ECI can, so they were scaled in a way that the paper does not give. The null renames experts in
-- each domain on its own, which keeps every domain's concentration: a score or number of domains
-- beyond its band is agreement of domains.
--
-- asks    Which experts weigh much in many domains?
-- source  COMMITTEEAUDIT (arXiv 2601.03425 v2) Table 8
-- reads   expert_usage, experts, model, scoped_requests
-- binds   $min_presence = 0.8: least share of domains that must list a candidate.
--         $rank_cutoff = 0: how deep each domain's list goes; 0 takes the run's top-k.
-- yields  layer_id, expert_id, num_domains [domains that list it],
--         eci_mean [gate weight per token, over those], eci_std [the same, population],
--         score [num_domains x eci_mean], member [boolean]
-- key     layer_id, expert_id
-- values  num_domains, eci_mean, eci_std, score
-- jumps   num_domains, eci_mean, eci_std, score
-- null    experts
-- order   layer_id, score descending, expert_id
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
        ) as least_listed
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
-- Summed around the mean, for squares of equal numbers leave a rounding behind.
spreads as (
    select
        ranked.layer_id,
        ranked.expert_id,
        sum(
            (ranked.eci - points.listed_sum / points.num_listed)
            * (ranked.eci - points.listed_sum / points.num_listed)
        ) as square_sum
    from ranked
    join points on ranked.layer_id = points.layer_id and ranked.expert_id = points.expert_id
    cross join rules
    where ranked.place <= rules.depth
    group by ranked.layer_id, ranked.expert_id
)
select
    points.layer_id,
    points.expert_id,
    cast(points.num_listed as bigint) as num_domains,
    points.listed_sum / nullif(points.num_listed, 0) as eci_mean,
    sqrt(spreads.square_sum / points.num_listed) as eci_std,
    points.listed_sum as score,
    coalesce(compared.beaten, 1) = 0 as member
from points
left join spreads
    on points.layer_id = spreads.layer_id and points.expert_id = spreads.expert_id
left join compared
    on points.layer_id = compared.layer_id and points.expert_id = compared.expert_id
order by points.layer_id, points.listed_sum desc, points.expert_id
