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
-- parts   domain_eci, domain_lists, committee_members, committee_shares, list_overlaps
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
with placed as (
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
jaccards as (
    select pairs.layer_id, avg(pairs.jaccard) as jaccard_mean
    from pairs
    group by pairs.layer_id
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
    shares.num_candidates,
    cast(shares.size as bigint) as size,
    shares.rank_mean,
    shares.rank_var,
    shares.coverage,
    shares.coverage_equal_weight,
    shares.coverage_lift,
    shares.influence_density,
    shares.inverse_density,
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
