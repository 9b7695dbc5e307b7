-- parts/eci_of_runs: as domain_eci, of this run (1) and of the other (2).
--
-- reads   expert_usage, other_expert_usage, model, scoped_requests, other_scoped_requests
-- binds   none
-- yields  entries, domains, used, sizes, contributions
-- order   none
entries as (
    select 1 as run, layer_id, domain, expert_id, num_choices, weight_sum
    from expert_usage
    union all
    select 2 as run, layer_id, domain, expert_id, num_choices, weight_sum
    from other_expert_usage
),
domains as (
    select 1 as run, cast(count(distinct domain) as double) as num_domains
    from scoped_requests
    union all
    select 2 as run, cast(count(distinct domain) as double) as num_domains
    from other_scoped_requests
),
used as (
    select
        run,
        layer_id,
        domain,
        expert_id,
        sum(num_choices) as num_choices,
        sum(weight_sum) as weight_sum
    from entries
    group by run, layer_id, domain, expert_id
),
sizes as (
    select used.run, used.layer_id, used.domain, sum(used.num_choices) as num_choices
    from used
    group by used.run, used.layer_id, used.domain
),
contributions as (
    select
        used.run,
        used.layer_id,
        used.domain,
        used.expert_id,
        used.weight_sum / (cast(sizes.num_choices as double) / model.top_k) as eci
    from used
    join sizes
        on used.run = sizes.run and used.layer_id = sizes.layer_id and used.domain = sizes.domain
    cross join model
)
