-- parts/domain_eci: mean gate weight of each expert that a domain chose, over the domain's tokens.
--
-- reads   expert_usage, model
-- binds   none
-- yields  used, sizes, contributions
-- order   none
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
        used.num_choices,
        used.weight_sum / (cast(sizes.num_choices as double) / model.top_k) as eci
    from used
    join sizes on used.layer_id = sizes.layer_id and used.domain = sizes.domain
    cross join model
)
