-- inputs/expert_usage: how often and how strongly each request used each expert in the scope.
--
-- reads   usage_entries, scoped_requests
-- binds   none (a view)
-- yields  request_id, origin, domain, layer_id, expert_id, num_choices [choices],
--         weight_sum [sum of gate weights]
-- order   none
select
    scoped_requests.request_id,
    origin,
    scoped_requests.domain,
    usage_entries.layer_id,
    usage_entries.expert_id,
    usage_entries.num_choices,
    usage_entries.weight_sum
from usage_entries
join scoped_requests using (origin)
