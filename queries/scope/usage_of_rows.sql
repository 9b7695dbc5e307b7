-- scope/usage_of_rows: how often and how strongly each request used each expert, from rows.
--
-- What usage_entries yields, where some tokens of the scope are left out, which sums hold.
-- In the DuckDB dialect: the two lists advance together.
--
-- reads   routing_entries
-- binds   none (a view)
-- yields  origin [request], layer_id, expert_id, num_choices [choices],
--         weight_sum [sum of gate weights]
-- order   none
with listed as (
    select
        origin,
        layer_id,
        unnest(expert_ids) as expert_id,
        unnest(gate_weights)::double as gate_weight
    from routing_entries
)
select
    origin,
    layer_id,
    expert_id,
    count(*) as num_choices,
    sum(gate_weight) as weight_sum
from listed
group by origin, layer_id, expert_id
