-- depth_profile: what a layer's committee and lists say, by its depth in the model.
--
-- One row per layer, with the curves that the report draws over depth. Lists hold the first k
-- experts of a domain by ECI, equal ones by id; the committee is that of the measure committee, and
-- coverage, lift and density are those of committee_coverage. Depth goes from 0, the first MoE
-- layer, to 1, the last, so that models of other sizes can be laid beside; nothing is averaged over
-- layers. jaccard_mean is over pairs of domains. gini is of the mean over domains of the ECI of
-- every chosen expert, gini_listed of the same with zero outside each domain's list, as published.
-- eci_distance is half the summed differences of two domains' shares of ECI, the mean over pairs: 0
-- where all are alike, 1 where no expert is shared.
-- References: coverage_equal_weight and gini_listed_equal, if all domains listed the same k equal
-- experts, are no chance level; jaccard_closed_form is the mean over pairs of random lists.
-- Density is infinite, and empty here, where the committee takes all that is listed, as it may in
-- draws; so its inverse, 0 there, has the interval and the chance: those of the density are one
-- over its bounds. The null renames experts in each domain on its own, which keeps the
-- concentration of each: agreement of domains is by chance. `tracer audit` prints the same numbers.
--
-- asks    How do committees, overlap and concentration change with depth?
-- source  COMMITTEEAUDIT (arXiv 2601.03425 v2) Eq. 8 to 14, Table 5, Figures 4 and 5
-- reads   expert_usage, experts, model, scoped_requests
-- binds   $min_presence = 0.8: least share of domains that must list a candidate.
--         $rank_cutoff = 0: how deep each domain's list goes; 0 takes the run's top-k.
-- yields  layer_id, depth [0 = first MoE layer, 1 = last], num_candidates [experts],
--         size [members], rank_mean [ranks, mean over members],
--         rank_var [ranks squared, mean over members], coverage [share of listed ECI],
--         coverage_equal_weight [the same if weights were equal],
--         coverage_lift [coverage over it], influence_density [member share over other's],
--         inverse_density [other's share over member's], eci_distance [0 to 1],
--         jaccard_mean [shared over listed by any],
--         jaccard_closed_form [mean over random lists], gini [0 to 1, 0 = equal experts],
--         gini_listed [the same, listed ECI alone], gini_listed_equal [1 - k / E]
-- key     layer_id
-- values  num_candidates, size, rank_mean, rank_var, coverage, coverage_lift, inverse_density,
--         eci_distance, jaccard_mean, gini, gini_listed
-- jumps   num_candidates, size, rank_mean, rank_var, coverage, coverage_lift, inverse_density,
--         jaccard_mean, gini_listed
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
committees as (
    select
        points.layer_id,
        sum(case when compared.beaten is null then 0 else 1 end) as num_candidates,
        cast(sum(case when compared.beaten = 0 then 1 else 0 end) as double) as size,
        sum(case when compared.beaten = 0 then points.rank_mean else 0 end) as rank_mean_sum,
        sum(case when compared.beaten = 0 then points.rank_var else 0 end) as rank_var_sum,
        sum(case when compared.beaten = 0 then points.listed_sum else 0 end) as member_sum,
        sum(points.listed_sum) as listed_sum
    from points
    left join compared
        on points.layer_id = compared.layer_id and points.expert_id = compared.expert_id
    group by points.layer_id
),
shares as (
    select
        committees.layer_id,
        committees.num_candidates,
        committees.size,
        committees.rank_mean_sum / nullif(committees.size, 0) as rank_mean,
        committees.rank_var_sum / nullif(committees.size, 0) as rank_var,
        case
            when committees.listed_sum > 0 then committees.member_sum / committees.listed_sum
            else 0
        end as coverage
    from committees
),
placed as (
    select
        points.layer_id,
        points.eci_sum,
        points.listed_sum,
        row_number() over (
            partition by points.layer_id order by points.eci_sum, points.expert_id
        ) as place,
        row_number() over (
            partition by points.layer_id order by points.listed_sum, points.expert_id
        ) as listed_place
    from points
),
ginis as (
    select
        placed.layer_id,
        sum((2 * placed.place - rules.num_experts - 1) * placed.eci_sum)
            / nullif(max(rules.num_experts) * sum(placed.eci_sum), 0) as gini,
        sum((2 * placed.listed_place - rules.num_experts - 1) * placed.listed_sum)
            / nullif(max(rules.num_experts) * sum(placed.listed_sum), 0) as gini_listed
    from placed
    cross join rules
    group by placed.layer_id
),
domain_sums as (
    select contributions.layer_id, contributions.domain, sum(contributions.eci) as eci_sum
    from contributions
    group by contributions.layer_id, contributions.domain
),
domain_shares as (
    select
        contributions.layer_id,
        contributions.expert_id,
        contributions.eci / domain_sums.eci_sum as share,
        row_number() over (
            partition by contributions.layer_id, contributions.expert_id
            order by contributions.eci / domain_sums.eci_sum desc, contributions.domain
        ) as from_top
    from contributions
    join domain_sums
        on contributions.layer_id = domain_sums.layer_id
        and contributions.domain = domain_sums.domain
    where domain_sums.eci_sum > 0
),
domains_of_layers as (
    select domain_sums.layer_id, cast(count(*) as double) as num_domains
    from domain_sums
    where domain_sums.eci_sum > 0
    group by domain_sums.layer_id
),
-- The differences of every two of n numbers add up to each number times how many are smaller less
-- how many are larger; domains without the expert have 0 and are the smallest.
distances as (
    select
        domain_shares.layer_id,
        sum(
            domain_shares.share * (domains_of_layers.num_domains + 1 - 2 * domain_shares.from_top)
        ) / nullif(
            max(domains_of_layers.num_domains) * (max(domains_of_layers.num_domains) - 1), 0
        ) as eci_distance
    from domain_shares
    join domains_of_layers on domain_shares.layer_id = domains_of_layers.layer_id
    group by domain_shares.layer_id
),
listed as (
    select ranked.layer_id, ranked.domain, ranked.expert_id
    from ranked
    cross join rules
    where ranked.place <= rules.depth
),
lists as (
    select listed.layer_id, listed.domain, count(*) as size
    from listed
    group by listed.layer_id, listed.domain
),
shared as (
    select
        one.layer_id,
        one.domain as domain_a,
        another.domain as domain_b,
        count(*) as num_shared
    from listed as one
    join listed as another
        on one.layer_id = another.layer_id and one.expert_id = another.expert_id
    where one.domain < another.domain
    group by one.layer_id, one.domain, another.domain
),
jaccards as (
    select
        one.layer_id,
        avg(
            coalesce(shared.num_shared, 0)
            / cast(one.size + another.size - coalesce(shared.num_shared, 0) as double)
        ) as jaccard_mean
    from lists as one
    join lists as another on one.layer_id = another.layer_id
    left join shared
        on one.layer_id = shared.layer_id
        and one.domain = shared.domain_a
        and another.domain = shared.domain_b
    where one.domain < another.domain
    group by one.layer_id
),
numbers as (
    select distinct expert_id + 1 as number
    from experts
),
possible as (
    select numbers.number as num_shared, rules.depth, rules.num_experts
    from numbers
    cross join rules
    where numbers.number <= rules.depth
        and numbers.number >= 2 * rules.depth - rules.num_experts
),
-- k! k! (E - k)! (E - k)! / (x! (k - x)! (k - x)! (E - 2k + x)! E!), as a sum of logarithms: the
-- logarithm of each number, as often as it is a factor above less below the line.
probabilities as (
    select
        possible.num_shared,
        possible.depth,
        exp(
            sum(
                ln(numbers.number) * (
                    2 * case when numbers.number <= possible.depth then 1 else 0 end
                    + 2 * case when numbers.number + possible.depth <= possible.num_experts
                        then 1 else 0 end
                    - case when numbers.number <= possible.num_shared then 1 else 0 end
                    - 2 * case when numbers.number + possible.num_shared <= possible.depth
                        then 1 else 0 end
                    - case when numbers.number + 2 * possible.depth
                            <= possible.num_experts + possible.num_shared
                        then 1 else 0 end
                    - 1
                )
            )
        ) as probability
    from possible
    cross join numbers
    group by possible.num_shared, possible.depth
),
chances as (
    select
        sum(
            probabilities.probability * probabilities.num_shared
            / cast(2 * probabilities.depth - probabilities.num_shared as double)
        ) as jaccard
    from probabilities
),
layers as (
    select distinct experts.layer_id
    from experts
),
depths as (
    select layers.layer_id, row_number() over (order by layers.layer_id) - 1 as place
    from layers
),
last_places as (
    select greatest(1, max(depths.place)) as place
    from depths
)
select
    depths.layer_id,
    depths.place / cast(last_places.place as double) as depth,
    cast(shares.num_candidates as bigint) as num_candidates,
    cast(shares.size as bigint) as size,
    shares.rank_mean,
    shares.rank_var,
    shares.coverage,
    shares.size / rules.depth as coverage_equal_weight,
    shares.coverage / nullif(shares.size / rules.depth, 0) as coverage_lift,
    case
        when shares.size = 0 or shares.size >= rules.num_experts then 1
        when 1 - shares.coverage >= 1e-12
            then shares.coverage / shares.size
                / ((1 - shares.coverage) / (rules.num_experts - shares.size))
    end as influence_density,
    case
        when shares.size = 0 or shares.size >= rules.num_experts then 1
        when 1 - shares.coverage < 1e-12 then 0
        else (1 - shares.coverage) / (rules.num_experts - shares.size)
            / nullif(shares.coverage / shares.size, 0)
    end as inverse_density,
    distances.eci_distance,
    jaccards.jaccard_mean,
    chances.jaccard as jaccard_closed_form,
    ginis.gini,
    ginis.gini_listed,
    1 - rules.depth / cast(rules.num_experts as double) as gini_listed_equal
from depths
join shares on depths.layer_id = shares.layer_id
join ginis on depths.layer_id = ginis.layer_id
left join distances on depths.layer_id = distances.layer_id
left join jaccards on depths.layer_id = jaccards.layer_id
cross join last_places
cross join chances
cross join rules
order by depths.layer_id
