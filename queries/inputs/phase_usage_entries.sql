-- inputs/phase_usage_entries: how often each request used each expert in its prompt and after it.
--
-- Always both phases, whatever the scope, of the requests that have tokens in the scope.
-- In the DuckDB dialect: the three lists advance together.
--
-- reads   usage, asked, scoped_requests
-- binds   none (a view)
-- yields  origin [request], phase [prompt or generated], layer_id, expert_id,
--         num_choices [choices], weight_sum [sum of gate weights]
-- order   none
with listed as (
    select
        request_id as origin,
        phase,
        layer_id,
        unnest(expert_ids) as expert_id,
        unnest(num_choices) as num_choices,
        unnest(weight_sum) as weight_sum
    from usage
    join asked using (run_id)
    where phase in ('prompt', 'generated')
        and request_id in (select origin from scoped_requests)
)
select
    origin,
    phase,
    layer_id,
    expert_id,
    sum(num_choices)::bigint as num_choices,
    sum(weight_sum) as weight_sum
from listed
group by origin, phase, layer_id, expert_id
