-- inputs/spark/phase_usage_entries: inputs/phase_usage_entries in the dialect of Spark.
--
-- reads   usage, asked, scoped_requests
-- binds   none (a view)
-- yields  origin [request], phase [prompt or generated], layer_id, expert_id,
--         num_choices [choices], weight_sum [sum of gate weights]
-- order   none
with listed as (
    select
        usage.request_id as origin,
        usage.phase,
        usage.layer_id,
        explode(arrays_zip(usage.expert_ids, usage.num_choices, usage.weight_sum)) as entry
    from usage
    join asked on usage.run_id = asked.run_id
    where usage.phase in ('prompt', 'generated')
        and usage.request_id in (select origin from scoped_requests)
)
select
    origin,
    phase,
    layer_id,
    entry.expert_ids as expert_id,
    cast(sum(entry.num_choices) as bigint) as num_choices,
    sum(entry.weight_sum) as weight_sum
from listed
group by origin, phase, layer_id, entry.expert_ids
