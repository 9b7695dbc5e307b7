-- verify/counts: complete requests that have too few or too many rows of routing in a layer.
--
-- A capture routes all tokens of a request but the last sampled one and those the prefix cache
-- had; an import may route the last one, too, then in all of its requests. Which of the two a run
-- is, most of its requests say.
--
-- reads   requests, routing, runs
-- binds   $run_id
-- yields  request_id, layer_id [the first of those, null if all], detail
-- order   request_id, layer_id, detail
with layers as (
    select unnest(moe_layers)::smallint as layer_id
    from runs
    where run_id = $run_id
),
found as (
    select request_id, layer_id, count(*) as num_rows
    from routing
    where run_id = $run_id
    group by request_id, layer_id
),
wanted as (
    select
        request_id,
        layer_id,
        num_prompt_tokens + num_generated_tokens - cached_prefix_tokens as num_tokens
    from requests
    cross join layers
    where run_id = $run_id and status = 'complete'
),
compared as (
    select
        wanted.request_id,
        wanted.layer_id,
        wanted.num_tokens,
        coalesce(found.num_rows, 0) as num_rows
    from wanted
    left join found using (request_id, layer_id)
),
unrouted as (
    select coalesce(mode(num_tokens - num_rows) filter (where num_tokens - num_rows in (0, 1)), 1)
        as num_tokens
    from compared
)
select
    request_id,
    if(count(*) = (select count(*) from layers), null, min(layer_id)) as layer_id,
    num_rows || ' rows of routing where ' || compared.num_tokens - unrouted.num_tokens
        || ' tokens were routed, in '
        || if(
            count(*) = (select count(*) from layers),
            'every layer',
            'layer ' || string_agg(layer_id, ', ' order by layer_id)
        ) as detail
from compared
cross join unrouted
where num_rows <> compared.num_tokens - unrouted.num_tokens
group by request_id, num_rows, compared.num_tokens, unrouted.num_tokens
order by request_id, layer_id, detail
