-- verify/strangers: rows of requests or layers that are not the run's.
--
-- Of requests that `requests` does not call complete, or of layers that `runs` does not list.
--
-- reads   requests, routing, runs, tokens, usage
-- binds   $run_id
-- yields  request_id, layer_id, detail
-- order   request_id, layer_id, detail
with layers as (
    select unnest(moe_layers)::smallint as layer_id
    from runs
    where run_id = $run_id
),
held as (
    select request_id, layer_id, 'routing' as name, count(*) as num_rows
    from routing
    where run_id = $run_id
    group by request_id, layer_id
    union all
    select request_id, layer_id, 'usage', count(*)
    from usage
    where run_id = $run_id
    group by request_id, layer_id
    union all
    select request_id, null, 'tokens', count(*)
    from tokens
    where run_id = $run_id
    group by request_id
),
complete as (
    select distinct request_id
    from requests
    where run_id = $run_id and status = 'complete'
)
select
    request_id,
    layer_id,
    num_rows || ' rows of ' || name || if(
        request_id in (from complete),
        ' in a layer that the run does not have',
        ' of a request that requests does not call complete'
    ) as detail
from held
where request_id not in (from complete)
    or (layer_id is not null and layer_id not in (from layers))
order by request_id, layer_id, detail
