-- verify/extras: candidates, logits and routers that do not fit the rows of complete requests.
--
-- reads   candidates, requests, router_logits, routers, routing, runs
-- binds   $run_id
-- yields  request_id, layer_id, detail
-- order   request_id, layer_id, detail
with sizes as (
    select num_experts
    from runs
    where run_id = $run_id
),
rows as (
    select request_id, layer_id, count(*) as num_rows
    from routing
    where run_id = $run_id
        and request_id in (
            select request_id
            from requests
            where run_id = $run_id and status = 'complete'
        )
    group by request_id, layer_id
),
further as (
    select
        request_id,
        layer_id,
        'candidates' as name,
        count(*) as num_rows,
        count(*) filter (
            where len(expert_ids) <> len(scores)
                or list_min(expert_ids) < 0
                or list_max(expert_ids) >= num_experts
                or len(list_distinct(expert_ids)) < len(expert_ids)
        ) as num_wrong
    from candidates
    cross join sizes
    where run_id = $run_id
    group by request_id, layer_id
    union all
    select
        request_id,
        layer_id,
        'router_logits',
        count(*),
        count(*) filter (where len(logits) <> num_experts)
    from router_logits
    cross join sizes
    where run_id = $run_id
    group by request_id, layer_id
),
recorded as (
    select distinct name
    from further
)
select
    request_id,
    layer_id,
    coalesce(further.num_rows, 0) || ' rows of ' || recorded.name || ' beside ' || rows.num_rows
        || ' of routing, ' || coalesce(num_wrong, 0) || ' of them wrong' as detail
from recorded
cross join rows
left join further using (request_id, layer_id, name)
where coalesce(further.num_rows, 0) <> rows.num_rows or num_wrong > 0
union all
select
    null,
    layer_id,
    count(*) || ' rows of routers, the first of ' || min(len(weight)) || ' weights'
from routers
cross join sizes
where routers.run_id = $run_id
group by layer_id, sizes.num_experts
having count(*) > 1 or min(len(weight)) <> min(routers.num_experts * hidden_size)
    or min(routers.num_experts) <> sizes.num_experts
order by request_id, layer_id, detail
