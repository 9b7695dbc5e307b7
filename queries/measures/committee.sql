-- committee: which experts of each layer stand high in the lists of almost every domain.
--
-- Experts are ranked by ECI within each domain and layer, equal ones by id; a domain's list is the
-- first k, and who is not in it has rank k + 1. Candidates are listed by at least the share
-- min_presence of domains, or, where none is, by the most (the fallback of the authors' code, which
-- the paper does not mention). Members are the candidates that no other beats: none is as good in
-- rank mean and rank variance and better in one. The null renames experts in each domain on its
-- own, which keeps every domain's concentration: presence and low ranks beyond its band are
-- agreement of domains. `tracer audit` prints the same committees.
--
-- asks    Which experts are relied on in almost every domain?
-- source  COMMITTEEAUDIT (arXiv 2601.03425 v2) Eq. 8 to 12
-- reads   expert_usage, experts, model, scoped_requests
-- binds   $min_presence = 0.8: least share of domains that must list a candidate.
--         $rank_cutoff = 0: how deep each domain's list goes; 0 takes the run's top-k.
-- yields  layer_id, expert_id, presence [share of domains], rank_mean [ranks, 1 = first],
--         rank_var [ranks squared, population variance], eci_mean [gate weight per token],
--         listed_eci_mean [the same, 0 where not listed], candidate [boolean], member [boolean]
-- key     layer_id, expert_id
-- values  presence, rank_mean, rank_var
-- jumps   presence, rank_mean, rank_var
-- null    experts
-- order   layer_id, expert_id
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
)
select
    points.layer_id,
    points.expert_id,
    points.num_listed / cast(points.num_domains as double) as presence,
    points.rank_mean,
    points.rank_var,
    points.eci_sum / points.num_domains as eci_mean,
    points.listed_sum / points.num_domains as listed_eci_mean,
    compared.beaten is not null as candidate,
    coalesce(compared.beaten, 1) = 0 as member
from points
left join compared
    on points.layer_id = compared.layer_id and points.expert_id = compared.expert_id
order by points.layer_id, points.expert_id
