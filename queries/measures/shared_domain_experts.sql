-- shared_domain_experts: how many experts serve both of two domains.
--
-- An expert serves a domain where it is chosen at least share_of_max times as often as the domain's
-- most chosen expert of the layer, as in domain_experts. The null exchanges domains, so its chance
-- is what two random halves of the same text share. num_shared_closed_form = a b / E is the mean if
-- the two domains' a and b experts were any of the E: what agreement is to be held against.
--
-- asks    Which domains share their experts, and how many?
-- source  DES-MoE (arXiv 2509.16882) Eq. 5-6
-- reads   expert_usage, model
-- binds   $share_of_max = 0.6: least use of an expert over that of the domain's most used, 0 to 1.
-- yields  domain, other_domain, layer_id, num_experts [experts that serve domain],
--         other_num_experts [experts that serve other_domain], num_shared [experts],
--         num_shared_closed_form [mean of random sets of these sizes],
--         overlap [Jaccard: num_shared over experts that serve either]
-- key     domain, other_domain, layer_id
-- values  num_shared, overlap
-- jumps   num_shared, overlap
-- null    labels
-- order   domain, other_domain, layer_id
with used as (
    select domain, layer_id, expert_id, sum(num_choices) as num_choices
    from expert_usage
    group by domain, layer_id, expert_id
),
most as (
    select domain, layer_id, max(num_choices) as num_choices
    from used
    group by domain, layer_id
),
served as (
    select used.domain, used.layer_id, used.expert_id
    from used
    join most on used.domain = most.domain and used.layer_id = most.layer_id
    where used.num_choices >= $share_of_max * most.num_choices
),
sizes as (
    select domain, layer_id, count(*) as num_experts
    from served
    group by domain, layer_id
),
shared as (
    select one.domain, two.domain as other_domain, one.layer_id, count(*) as num_shared
    from served as one
    join served as two
        on one.layer_id = two.layer_id
        and one.expert_id = two.expert_id
        and one.domain < two.domain
    group by one.domain, two.domain, one.layer_id
)
select
    one.domain,
    two.domain as other_domain,
    one.layer_id,
    one.num_experts,
    two.num_experts as other_num_experts,
    coalesce(shared.num_shared, 0) as num_shared,
    one.num_experts * two.num_experts / cast(model.num_experts as double)
        as num_shared_closed_form,
    coalesce(shared.num_shared, 0) / cast(
        one.num_experts + two.num_experts - coalesce(shared.num_shared, 0) as double
    ) as overlap
from sizes as one
join sizes as two on one.layer_id = two.layer_id and one.domain < two.domain
cross join model
left join shared
    on one.domain = shared.domain
    and two.domain = shared.other_domain
    and one.layer_id = shared.layer_id
order by one.domain, two.domain, one.layer_id
