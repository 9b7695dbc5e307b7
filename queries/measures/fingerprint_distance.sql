-- fingerprint_distance: how differently two models route, without comparing their expert ids.
--
-- A layer is compared with that of the other model at the nearest relative depth (equal ones: the
-- earlier). Three profiles are taken of each: relative load of every expert (load x E); for each
-- domain of both runs, the share of every used expert's work that is in the domain, domains
-- weighing alike; and how often each pair of experts is chosen for one token, over what even
-- routing has. Ids are dropped: the distance is the Wasserstein-1 distance between the sorted
-- values as distributions, so E and k may differ; that of domains is the mean over them. 0 for a
-- model whose experts are renamed. Without pairs (k = 1) the last has no value.
-- The null lets two samples of this run's requests, drawn on their own, stand for the two runs: the
-- distance of a model from itself on other requests. On the same requests it is even less.
--
-- asks    Do two models route alike, whatever their experts are called?
-- source  KD detection (arXiv 2510.16968): specialisation and collaboration of experts compared by
--         a Wasserstein distance free of permutations; it does not print the profiles, which are
--         our choice
-- reads   expert_usage, other_expert_usage, expert_pairs, other_expert_pairs, experts,
--         other_experts, model, other_model
-- binds   none
-- yields  layer_id, other_layer_id, load_distance [relative load],
--         specialisation_distance [share of an expert's work],
--         coactivation_distance [relative co-activation]
-- key     layer_id
-- values  load_distance, specialisation_distance, coactivation_distance
-- null    one_model
-- order   layer_id
with layers as (
    select
        layer_id,
        (2 * row_number() over (order by layer_id) - 1) / cast(2 * count(*) over () as double)
            as depth
    from (select distinct layer_id from experts) as named
),
other_layers as (
    select
        layer_id,
        (2 * row_number() over (order by layer_id) - 1) / cast(2 * count(*) over () as double)
            as depth
    from (select distinct layer_id from other_experts) as named
),
nearest as (
    select
        layers.layer_id,
        other_layers.layer_id as other_layer_id,
        row_number() over (
            partition by layers.layer_id
            order by abs(layers.depth - other_layers.depth), other_layers.layer_id
        ) as place
    from layers
    cross join other_layers
),
matched as (
    select layer_id, other_layer_id
    from nearest
    where place = 1
),
used as (
    select layer_id, domain, expert_id, cast(sum(num_choices) as double) as num_choices
    from expert_usage
    group by layer_id, domain, expert_id
),
other_used as (
    select layer_id, domain, expert_id, cast(sum(num_choices) as double) as num_choices
    from other_expert_usage
    group by layer_id, domain, expert_id
),
domains as (
    select domain
    from (select distinct domain from used) as one
    where domain in (select domain from other_used)
),
shares as (
    select
        layer_id,
        domain,
        expert_id,
        num_choices / sum(num_choices) over (partition by layer_id, domain) as share
    from used
    where domain in (select domain from domains)
),
other_shares as (
    select
        layer_id,
        domain,
        expert_id,
        num_choices / sum(num_choices) over (partition by layer_id, domain) as share
    from other_used
    where domain in (select domain from domains)
),
workers as (
    select layer_id, expert_id, sum(share) as total, count(*) over (partition by layer_id) as number
    from shares
    group by layer_id, expert_id
),
other_workers as (
    select layer_id, expert_id, sum(share) as total, count(*) over (partition by layer_id) as number
    from other_shares
    group by layer_id, expert_id
),
pairs as (
    select layer_id, cast(num_tokens as double) as num_tokens
    from expert_pairs
),
other_pairs as (
    select layer_id, cast(num_tokens as double) as num_tokens
    from other_expert_pairs
),
possible as (
    select cast(num_experts as double) * (num_experts - 1) / 2 as number
    from model
),
other_possible as (
    select cast(num_experts as double) * (num_experts - 1) / 2 as number
    from other_model
),
profiles as (
    -- Values of a profile with their weights, 1 in sum; pairs never chosen are one value of 0.
    select
        experts.layer_id,
        'load' as profile,
        '' as domain,
        coalesce(loads.num_choices, 0) * model.num_experts / totals.num_choices as value,
        1 / cast(model.num_experts as double) as weight
    from experts
    cross join model
    join (select layer_id, sum(num_choices) as num_choices from used group by layer_id) as totals
        on experts.layer_id = totals.layer_id
    left join (
        select layer_id, expert_id, sum(num_choices) as num_choices
        from used
        group by layer_id, expert_id
    ) as loads
        on experts.layer_id = loads.layer_id and experts.expert_id = loads.expert_id
    union all
    select
        workers.layer_id,
        'specialisation' as profile,
        domains.domain,
        coalesce(shares.share, 0) / workers.total as value,
        1 / cast(workers.number as double) as weight
    from workers
    cross join domains
    left join shares
        on workers.layer_id = shares.layer_id
        and workers.expert_id = shares.expert_id
        and domains.domain = shares.domain
    union all
    select
        pairs.layer_id,
        'coactivation' as profile,
        '' as domain,
        pairs.num_tokens / sum(pairs.num_tokens) over (partition by pairs.layer_id)
            * possible.number as value,
        1 / possible.number as weight
    from pairs
    cross join possible
    union all
    select
        pairs.layer_id,
        'coactivation' as profile,
        '' as domain,
        cast(0 as double) as value,
        1 - count(*) / max(possible.number) as weight
    from pairs
    cross join possible
    group by pairs.layer_id
),
other_profiles as (
    select
        other_experts.layer_id,
        'load' as profile,
        '' as domain,
        coalesce(loads.num_choices, 0) * other_model.num_experts / totals.num_choices as value,
        1 / cast(other_model.num_experts as double) as weight
    from other_experts
    cross join other_model
    join (
        select layer_id, sum(num_choices) as num_choices
        from other_used
        group by layer_id
    ) as totals
        on other_experts.layer_id = totals.layer_id
    left join (
        select layer_id, expert_id, sum(num_choices) as num_choices
        from other_used
        group by layer_id, expert_id
    ) as loads
        on other_experts.layer_id = loads.layer_id and other_experts.expert_id = loads.expert_id
    union all
    select
        other_workers.layer_id,
        'specialisation' as profile,
        domains.domain,
        coalesce(other_shares.share, 0) / other_workers.total as value,
        1 / cast(other_workers.number as double) as weight
    from other_workers
    cross join domains
    left join other_shares
        on other_workers.layer_id = other_shares.layer_id
        and other_workers.expert_id = other_shares.expert_id
        and domains.domain = other_shares.domain
    union all
    select
        other_pairs.layer_id,
        'coactivation' as profile,
        '' as domain,
        other_pairs.num_tokens
            / sum(other_pairs.num_tokens) over (partition by other_pairs.layer_id)
            * other_possible.number as value,
        1 / other_possible.number as weight
    from other_pairs
    cross join other_possible
    union all
    select
        other_pairs.layer_id,
        'coactivation' as profile,
        '' as domain,
        cast(0 as double) as value,
        1 - count(*) / max(other_possible.number) as weight
    from other_pairs
    cross join other_possible
    group by other_pairs.layer_id
),
steps as (
    -- The area between the two distribution functions, step by step.
    select layer_id, other_layer_id, profile, domain, value, sum(weight) as rise
    from (
        select
            matched.layer_id,
            matched.other_layer_id,
            profiles.profile,
            profiles.domain,
            profiles.value,
            profiles.weight
        from matched
        join profiles on matched.layer_id = profiles.layer_id
        union all
        select
            matched.layer_id,
            matched.other_layer_id,
            other_profiles.profile,
            other_profiles.domain,
            other_profiles.value,
            -other_profiles.weight as weight
        from matched
        join other_profiles on matched.other_layer_id = other_profiles.layer_id
    ) as joined
    group by layer_id, other_layer_id, profile, domain, value
),
areas as (
    select
        layer_id,
        other_layer_id,
        profile,
        domain,
        sum(rise) over (
            partition by layer_id, profile, domain
            order by value
            rows between unbounded preceding and current row
        ) as height,
        lead(value) over (partition by layer_id, profile, domain order by value) - value as width
    from steps
),
distances as (
    select layer_id, profile, domain, coalesce(sum(abs(height) * width), 0) as distance
    from areas
    group by layer_id, profile, domain
)
select
    matched.layer_id,
    matched.other_layer_id,
    avg(case when distances.profile = 'load' then distances.distance end) as load_distance,
    avg(case when distances.profile = 'specialisation' then distances.distance end)
        as specialisation_distance,
    avg(case when distances.profile = 'coactivation' then distances.distance end)
        as coactivation_distance
from matched
left join distances on matched.layer_id = distances.layer_id
group by matched.layer_id, matched.other_layer_id
order by matched.layer_id
