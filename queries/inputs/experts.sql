-- inputs/experts: every routed expert of every MoE layer, chosen or not.
--
-- In the DuckDB dialect.
--
-- reads   asked
-- binds   none (a view)
-- yields  layer_id, expert_id
-- order   none
with layers as (
    select unnest(moe_layers)::smallint as layer_id
    from asked
),
ids as (
    select unnest(generate_series(0, num_experts - 1))::smallint as expert_id
    from asked
)
select layer_id, expert_id
from layers
cross join ids
