-- inputs/router_weights: the router matrix of each layer, one row per weight.
--
-- In the DuckDB dialect: the unnested columns advance together.
--
-- reads   routers, asked
-- binds   none (a view)
-- yields  layer_id, expert_id, dimension [from 0], weight
-- order   none
with listed as (
    select
        layer_id,
        hidden_size,
        unnest(generate_series(0, len(weight) - 1)) as place,
        unnest(weight)::double as weight
    from routers
    join asked using (run_id)
)
select
    layer_id,
    (place // hidden_size)::smallint as expert_id,
    (place % hidden_size)::integer as dimension,
    weight
from listed
