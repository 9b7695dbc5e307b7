-- eci: mean gate weight of each expert over the tokens of a domain.
--
-- The Expert Contribution Index on what a trace holds: a token that did not choose the expert adds
-- zero. An expert that no token of the domain chose has 0. Chance exchanges domains of requests:
-- a value outside its band belongs to the domain, not to chance.
--
-- asks    How strongly does each domain rely on each expert?
-- source  COMMITTEEAUDIT (arXiv 2601.03425 v2) Eq. 2, restricted to the chosen experts
-- reads   expert_usage, experts, model, scoped_requests
-- binds   none
-- yields  layer_id, domain, expert_id, num_choices [choices], eci [gate weight per token]
-- key     layer_id, domain, expert_id
-- values  eci
-- null    labels
-- order   layer_id, domain, expert_id
with domains as (
    select distinct domain
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
)
select
    experts.layer_id,
    domains.domain,
    experts.expert_id,
    cast(coalesce(used.num_choices, 0) as bigint) as num_choices,
    coalesce(used.weight_sum, 0) / (cast(sizes.num_choices as double) / model.top_k) as eci
from experts
cross join domains
cross join model
join sizes on experts.layer_id = sizes.layer_id and domains.domain = sizes.domain
left join used
    on experts.layer_id = used.layer_id
    and domains.domain = used.domain
    and experts.expert_id = used.expert_id
order by experts.layer_id, domains.domain, experts.expert_id
