-- domain_overlap: how far two domains rely on the same experts of a layer.
--
-- The Jaccard index of the two domains' lists, which hold the first k experts by ECI, equal ones by
-- id. jaccard_closed_form is its mean over random sets of the lists' sizes, from the hypergeometric
-- distribution of what they share. The null renames experts in each domain on its own, which draws
-- just those sets: the mean of its draws tends to the closed form.
--
-- asks    Do domains rely on the same experts?
-- source  COMMITTEEAUDIT (arXiv 2601.03425 v2) Eq. 13; the closed form is ours
-- parts   domain_eci, domain_lists, list_overlaps
-- reads   expert_usage, experts, model, scoped_requests
-- binds   $rank_cutoff = 0: how deep each domain's list goes; 0 takes the run's top-k.
-- yields  layer_id, domain_a, domain_b, num_shared [experts], jaccard [shared over listed by any],
--         jaccard_closed_form [mean over random lists]
-- key     layer_id, domain_a, domain_b
-- values  jaccard
-- jumps   jaccard
-- null    experts
-- order   layer_id, domain_a, domain_b
with numbers as (
    select distinct expert_id + 1 as number
    from experts
),
sizes_of_pairs as (
    select distinct pairs.size_a, pairs.size_b, rules.num_experts
    from pairs
    cross join rules
),
possible as (
    select
        sizes_of_pairs.size_a,
        sizes_of_pairs.size_b,
        sizes_of_pairs.num_experts,
        numbers.number as num_shared
    from sizes_of_pairs
    cross join numbers
    where numbers.number <= sizes_of_pairs.size_a
        and numbers.number <= sizes_of_pairs.size_b
        and numbers.number >= sizes_of_pairs.size_a + sizes_of_pairs.size_b
            - sizes_of_pairs.num_experts
),
-- a! (E - a)! b! (E - b)! / (x! (a - x)! (b - x)! (E - a - b + x)! E!), as a sum of logarithms:
-- the logarithm of each number, as often as it is a factor above less below the line.
probabilities as (
    select
        possible.size_a,
        possible.size_b,
        possible.num_shared,
        exp(
            sum(
                ln(numbers.number) * (
                    case when numbers.number <= possible.size_a then 1 else 0 end
                    + case when numbers.number + possible.size_a <= possible.num_experts
                        then 1 else 0 end
                    + case when numbers.number <= possible.size_b then 1 else 0 end
                    + case when numbers.number + possible.size_b <= possible.num_experts
                        then 1 else 0 end
                    - case when numbers.number <= possible.num_shared then 1 else 0 end
                    - case when numbers.number + possible.num_shared <= possible.size_a
                        then 1 else 0 end
                    - case when numbers.number + possible.num_shared <= possible.size_b
                        then 1 else 0 end
                    - case when numbers.number + possible.size_a + possible.size_b
                            <= possible.num_experts + possible.num_shared
                        then 1 else 0 end
                    - 1
                )
            )
        ) as probability
    from possible
    cross join numbers
    group by possible.size_a, possible.size_b, possible.num_shared
),
chances as (
    select
        probabilities.size_a,
        probabilities.size_b,
        sum(
            probabilities.probability * probabilities.num_shared
            / cast(
                probabilities.size_a + probabilities.size_b - probabilities.num_shared as double
            )
        ) as jaccard
    from probabilities
    group by probabilities.size_a, probabilities.size_b
)
select
    pairs.layer_id,
    pairs.domain_a,
    pairs.domain_b,
    cast(pairs.num_shared as bigint) as num_shared,
    pairs.jaccard,
    chances.jaccard as jaccard_closed_form
from pairs
join chances on pairs.size_a = chances.size_a and pairs.size_b = chances.size_b
order by pairs.layer_id, pairs.domain_a, pairs.domain_b
