-- inputs/routed_tokens: the choices of every token in the scope, as lists, with their domain.
--
-- reads   routing_entries, scoped_requests
-- binds   none (a view)
-- yields  request_id, origin, domain, phase, position [tokens, from 0], layer_id,
--         expert_ids [list, by descending gate weight], gate_weights [list]
-- order   none
select
    scoped_requests.request_id,
    origin,
    scoped_requests.domain,
    routing_entries.phase,
    routing_entries.position,
    routing_entries.layer_id,
    routing_entries.expert_ids,
    routing_entries.gate_weights
from routing_entries
join scoped_requests using (origin)
