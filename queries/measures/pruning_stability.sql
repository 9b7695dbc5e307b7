-- pruning_stability: whether two samples of requests would keep the same experts.
--
-- For n = 1, 2, 4, ... (at most 2^(E - 1)) two samples of n requests are taken that share none, and
-- each keeps $keep experts of a layer as pruning_plan does; the value is the Jaccard index of the
-- two kept sets.
-- Samples are taken in an order that hashes the requests' ids, alternately for either; copies of a
-- request count as one and stay on one side. Experts of equal score are ordered by a hash that
-- differs between the samples, so that experts nobody chose do not agree by their ids.
-- The closed form is of two sets of $keep experts drawn evenly. The null lets each token choose
-- evenly and on its own, which is nearly that. Intervals need requests drawn anew to fill both
-- samples; copies count once, so the largest sizes often have none.
--
-- asks    How many requests settle which experts to keep?
-- source  EASY-EP (arXiv 2504.06792): a few demonstrations find a stable set of experts
-- reads   expert_usage, experts, model, scoped_requests
-- binds   $keep = 0: experts to keep in each layer; 0 keeps half of them, rounded up.
--         $by = "mass" or "frequency": what is shared, mass (gate weights) or frequency (choices).
-- yields  layer_id, sample_size [requests in each sample], jaccard [0 to 1],
--         jaccard_closed_form [of two random sets]
-- key     layer_id, sample_size
-- values  jaccard
-- jumps   jaccard
-- null    uniform
-- order   layer_id, sample_size
with origins as (
    select origin, row_number() over (order by md5(origin), origin) as place
    from (select distinct origin from scoped_requests) as named
),
dealt as (
    select
        origin,
        case when place % 2 = 1 then 1 else 2 end as side,
        case when place % 2 = 1 then (place + 1) / 2 else place / 2 end as place
    from origins
),
halves as (
    select
        cast(num_experts as double) as num_experts,
        case
            when $keep <= 0 then ceil(num_experts / cast(2 as double))
            when $keep > num_experts then cast(num_experts as double)
            else cast($keep as double)
        end as keep,
        (select max(place) from dealt where side = 2) as most
    from model
),
powers as (
    select power(2, expert_id) as sample_size
    from (select distinct expert_id from experts) as named
    where expert_id < 24
),
samples as (
    select cast(powers.sample_size as bigint) as sample_size
    from powers
    cross join halves
    where powers.sample_size <= halves.most
),
used as (
    select
        samples.sample_size,
        dealt.side,
        expert_usage.layer_id,
        expert_usage.domain,
        expert_usage.expert_id,
        sum(
            case
                when $by = 'frequency' then cast(expert_usage.num_choices as double)
                else expert_usage.weight_sum
            end
        ) as amount
    from expert_usage
    join dealt on expert_usage.origin = dealt.origin
    join samples on dealt.place <= samples.sample_size
    group by
        samples.sample_size,
        dealt.side,
        expert_usage.layer_id,
        expert_usage.domain,
        expert_usage.expert_id
),
shares as (
    select
        sample_size,
        side,
        layer_id,
        expert_id,
        amount / nullif(sum(amount) over (partition by sample_size, side, layer_id, domain), 0)
            as share
    from used
),
scores as (
    select sample_size, side, layer_id, expert_id, sum(share) as score
    from shares
    group by sample_size, side, layer_id, expert_id
),
sides as (
    select 1 as side
    union all
    select 2 as side
),
ranked as (
    select
        samples.sample_size,
        sides.side,
        experts.layer_id,
        experts.expert_id,
        row_number() over (
            partition by samples.sample_size, sides.side, experts.layer_id
            order by
                round(coalesce(scores.score, 0), 12) desc,
                md5(
                    concat(
                        cast(sides.side as varchar), '/',
                        cast(samples.sample_size as varchar), '/',
                        cast(experts.layer_id as varchar), '/',
                        cast(experts.expert_id as varchar)
                    )
                )
        ) as score_rank
    from experts
    cross join samples
    cross join sides
    left join scores
        on samples.sample_size = scores.sample_size
        and sides.side = scores.side
        and experts.layer_id = scores.layer_id
        and experts.expert_id = scores.expert_id
),
kept as (
    select ranked.sample_size, ranked.layer_id, ranked.expert_id, count(*) as num_sides
    from ranked
    cross join halves
    where ranked.score_rank <= halves.keep
    group by ranked.sample_size, ranked.layer_id, ranked.expert_id
),
factorials as (
    -- Logarithms of factorials, of 0 to E.
    select number, sum(case when number > 0 then ln(number) else 0 end) over (
        order by number rows between unbounded preceding and current row
    ) as logarithm
    from (
        select distinct cast(expert_id as double) as number
        from experts
        union
        select num_experts as number
        from halves
    ) as counted
),
expected as (
    -- Two sets of M of E share s with the hypergeometric probability of s.
    select
        sum(
            shared.number / (2 * halves.keep - shared.number)
            * exp(
                2 * kept.logarithm + 2 * pruned.logarithm - every.logarithm
                - shared.logarithm - 2 * apart.logarithm - neither.logarithm
            )
        ) as jaccard
    from halves
    join factorials as every on every.number = halves.num_experts
    join factorials as kept on kept.number = halves.keep
    join factorials as pruned on pruned.number = halves.num_experts - halves.keep
    join factorials as shared on shared.number <= halves.keep
    join factorials as apart on apart.number = halves.keep - shared.number
    join factorials as neither
        on neither.number = halves.num_experts - 2 * halves.keep + shared.number
)
select
    kept.layer_id,
    kept.sample_size,
    sum(kept.num_sides - 1) / cast(count(*) as double) as jaccard,
    max(expected.jaccard) as jaccard_closed_form
from kept
cross join expected
group by kept.layer_id, kept.sample_size
order by kept.layer_id, kept.sample_size
