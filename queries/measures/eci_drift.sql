-- eci_drift: how each expert's contribution changes from one run to another.
--
-- ECI is the mean gate weight over a domain's tokens, zeros included; here its mean over the
-- domains of each run, as `committee` has it, so that a large domain counts like a small one. The
-- other run is a checkpoint, variant or later run of the same model, best on the same requests and
-- domains. The null exchanges the runs of whole requests.
--
-- asks    Which experts gain or lose contribution from one run to another?
-- source  COMMITTEEAUDIT (arXiv 2601.03425 v2) Eq. 2, of two runs; the difference is our choice
-- reads   expert_usage, other_expert_usage, experts, model, scoped_requests,
--         other_scoped_requests
-- binds   none
-- yields  layer_id, expert_id, eci [gate weight per token], other_eci [gate weight per token],
--         eci_change [other - this]
-- key     layer_id, expert_id
-- values  eci_change
-- null    runs
-- order   layer_id, expert_id
with entries as (
    select 1 as run, layer_id, domain, expert_id, num_choices, weight_sum
    from expert_usage
    union all
    select 2 as run, layer_id, domain, expert_id, num_choices, weight_sum
    from other_expert_usage
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
domains as (
    select 1 as run, count(distinct domain) as num_domains
    from scoped_requests
    union all
    select 2 as run, count(distinct domain) as num_domains
    from other_scoped_requests
),
contributions as (
    select
        used.run,
        used.layer_id,
        used.expert_id,
        sum(used.weight_sum / (cast(sizes.num_choices as double) / model.top_k)) as eci_sum
    from used
    join sizes
        on used.run = sizes.run and used.layer_id = sizes.layer_id and used.domain = sizes.domain
    cross join model
    group by used.run, used.layer_id, used.expert_id
),
means as (
    select
        contributions.run,
        contributions.layer_id,
        contributions.expert_id,
        contributions.eci_sum / domains.num_domains as eci
    from contributions
    join domains on contributions.run = domains.run
)
select
    experts.layer_id,
    experts.expert_id,
    coalesce(one.eci, 0) as eci,
    coalesce(two.eci, 0) as other_eci,
    coalesce(two.eci, 0) - coalesce(one.eci, 0) as eci_change
from experts
left join means as one
    on experts.layer_id = one.layer_id and experts.expert_id = one.expert_id and one.run = 1
left join means as two
    on experts.layer_id = two.layer_id and experts.expert_id = two.expert_id and two.run = 2
order by experts.layer_id, experts.expert_id
