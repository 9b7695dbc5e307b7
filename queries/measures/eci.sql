-- eci: mean gate weight of each expert over the tokens of a domain.
--
-- The Expert Contribution Index on what a trace holds: a token that did not choose the expert adds
-- zero. An expert that no token of the domain chose has 0. Chance exchanges domains of requests:
-- a value outside its band belongs to the domain, not to chance.
--
-- asks    How strongly does each domain rely on each expert?
-- source  COMMITTEEAUDIT (arXiv 2601.03425 v2) Eq. 2, restricted to the chosen experts
-- parts   domain_eci
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
)
select
    experts.layer_id,
    domains.domain,
    experts.expert_id,
    cast(coalesce(contributions.num_choices, 0) as bigint) as num_choices,
    coalesce(contributions.eci, 0) as eci
from experts
cross join domains
join sizes on experts.layer_id = sizes.layer_id and domains.domain = sizes.domain
left join contributions
    on experts.layer_id = contributions.layer_id
    and domains.domain = contributions.domain
    and experts.expert_id = contributions.expert_id
order by experts.layer_id, domains.domain, experts.expert_id
