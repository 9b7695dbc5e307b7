-- inputs/phase_usage: how often each request used each expert in its prompt and after it.
--
-- Always both phases, whatever the scope, of the requests that have tokens in the scope.
--
-- reads   phase_usage_entries, scoped_requests
-- binds   none (a view)
-- yields  request_id, origin, domain, phase [prompt or generated], layer_id, expert_id,
--         num_choices [choices], weight_sum [sum of gate weights]
-- order   none
select
    scoped_requests.request_id,
    origin,
    scoped_requests.domain,
    phase_usage_entries.phase,
    phase_usage_entries.layer_id,
    phase_usage_entries.expert_id,
    phase_usage_entries.num_choices,
    phase_usage_entries.weight_sum
from phase_usage_entries
join scoped_requests using (origin)
