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
-- parts   domain_eci, domain_lists, committee_members
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
with spreads as (
    -- Summed around the mean, for squares of equal numbers leave a rounding behind.
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
