-- reference_weights: what the COMMITTEEAUDIT code ranks experts by, from the sums per domain.
--
-- W holds the gate weight of the expert for the last prompt token of each of the N requests of a
-- domain, zero where it was not chosen. The value is
--     mean((W - min W) / (max W - min W + 1e-6)) * (choices / N)
-- and needs only count, sum, smallest and largest weight. An expert that always gets the same
-- weight has value 0; an expert nobody chose has no row.
--
-- source  github The-FinAI/CommitteeAudit be5c1d7, get_frequency_and_weight_data.py
-- reads   usage_by_domain, runs
-- binds   $run_id
-- yields  layer_id, domain, expert_id, num_choices [choices], num_tokens [last prompt tokens of
--         the domain, N], normalised_weight
-- order   layer_id, domain, normalised_weight descending, expert_id
with experts as (
    select
        layer_id,
        domain,
        expert_id,
        sum(num_choices)::bigint as num_choices,
        sum(weight_sum) as weight_sum,
        min(weight_min)::double as weight_min,
        max(weight_max)::double as weight_max
    from usage_by_domain
    where run_id = $run_id and phase = 'last-prompt'
    group by layer_id, domain, expert_id
),
sizes as (
    select
        layer_id,
        domain,
        (sum(num_choices) // (select top_k from runs where run_id = $run_id))::bigint
            as num_tokens
    from experts
    group by layer_id, domain
),
extremes as (
    select
        layer_id,
        domain,
        expert_id,
        num_choices,
        num_tokens,
        weight_sum,
        if(num_choices < num_tokens, least(weight_min, 0), weight_min) as low,
        if(num_choices < num_tokens, greatest(weight_max, 0), weight_max) as high
    from experts
    join sizes using (layer_id, domain)
)
select
    layer_id,
    domain,
    expert_id,
    num_choices,
    num_tokens,
    -- All weights equal: exactly zero, which sum / N - low may miss by a rounding.
    if(high = low, 0, (weight_sum / num_tokens - low) / (high - low + 1e-6))
        * (num_choices / num_tokens) as normalised_weight
from extremes
order by layer_id, domain, normalised_weight desc, expert_id
