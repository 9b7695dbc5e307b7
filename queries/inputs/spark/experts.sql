-- inputs/spark/experts: inputs/experts in the dialect of Spark.
--
-- reads   asked
-- binds   none (a view)
-- yields  layer_id, expert_id
-- order   none
with layers as (
    select explode(moe_layers) as layer_id
    from asked
),
ids as (
    select explode(sequence(0, num_experts - 1)) as expert_id
    from asked
)
select cast(layer_id as smallint) as layer_id, cast(expert_id as smallint) as expert_id
from layers
cross join ids
