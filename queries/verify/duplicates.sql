-- verify/duplicates: keys of routing and tokens that occur more than once.
--
-- reads   routing, tokens
-- binds   $run_id
-- yields  request_id, layer_id, detail
-- order   request_id, layer_id, detail
select
    request_id,
    layer_id,
    count(*) - count(distinct position) || ' positions twice in routing' as detail
from routing
where run_id = $run_id
group by request_id, layer_id
having count(*) > count(distinct position)
union all
select
    request_id,
    null,
    count(*) - count(distinct position) || ' positions twice in tokens'
from tokens
where run_id = $run_id
group by request_id
having count(*) > count(distinct position)
order by request_id, layer_id, detail
