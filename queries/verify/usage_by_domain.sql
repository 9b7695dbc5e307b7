-- verify/usage_by_domain: sums per domain that are not those of usage.
--
-- Sums of weights may differ in the last bits: they are added in another order.
--
-- reads   requests, usage, usage_by_domain
-- binds   $run_id
-- yields  request_id [null], layer_id, detail
-- order   layer_id, detail
with listed as (
    select
        domain,
        phase,
        layer_id,
        unnest(expert_ids) as expert_id,
        unnest(num_choices) as num_choices,
        unnest(weight_sum) as weight_sum
    from usage
    join requests using (run_id, request_id)
    where run_id = $run_id
),
summed as (
    select
        domain,
        phase,
        layer_id,
        expert_id,
        sum(num_choices) as num_choices,
        sum(weight_sum) as weight_sum
    from listed
    group by domain, phase, layer_id, expert_id
),
stored as (
    select
        domain,
        phase,
        layer_id,
        expert_id,
        sum(num_choices) as num_choices,
        sum(weight_sum) as weight_sum
    from usage_by_domain
    where run_id = $run_id
    group by domain, phase, layer_id, expert_id
)
select
    null::varchar as request_id,
    layer_id,
    count(*) || ' sums of domain ' || domain || ' differ from usage' as detail
from summed
full join stored using (domain, phase, layer_id, expert_id)
where summed.num_choices is distinct from stored.num_choices
    or summed.weight_sum is null
    or stored.weight_sum is null
    or not abs(summed.weight_sum - stored.weight_sum) <= 1e-9 * greatest(abs(summed.weight_sum), 1)
group by layer_id, domain
order by layer_id, detail
