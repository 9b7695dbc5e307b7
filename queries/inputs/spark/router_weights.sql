-- inputs/spark/router_weights: inputs/router_weights in the dialect of Spark.
--
-- reads   routers, asked
-- binds   none (a view)
-- yields  layer_id, expert_id, dimension [from 0], weight
-- order   none
with listed as (
    select
        routers.layer_id,
        routers.hidden_size,
        posexplode(routers.weight) as (place, weight)
    from routers
    join asked on routers.run_id = asked.run_id
)
select
    layer_id,
    cast(place div hidden_size as smallint) as expert_id,
    place % hidden_size as dimension,
    cast(weight as double) as weight
from listed
