-- inputs/usage_entries: how often and how strongly each request used each expert in the scope.
--
-- In the DuckDB dialect: the three lists advance together.
--
-- reads   usage, asked, scoped_requests
-- binds   none (a view)
-- yields  origin [request], layer_id, expert_id, num_choices [choices],
--         weight_sum [sum of gate weights]
-- order   none
with listed as (
    select
        request_id as origin,
        layer_id,
        unnest(expert_ids) as expert_id,
        unnest(num_choices) as num_choices,
        unnest(weight_sum) as weight_sum
    from usage
    join asked using (run_id)
    where (phase = tokens or (tokens = 'all' and phase in ('prompt', 'generated')))
        and request_id in (select origin from scoped_requests)
)
select
    origin,
    layer_id,
    expert_id,
    sum(num_choices)::bigint as num_choices,
    sum(weight_sum) as weight_sum
from listed
group by origin, layer_id, expert_id
