-- choices: routing in its long form, one row per choice of an expert.
--
-- The only view that unnests a list, and in the DuckDB dialect: the three unnested columns advance
-- together, which other engines read as a cross product. An expert of rank r is the r-th
-- by gate weight for this token. Rows of a request that `requests` does not name, which a crash
-- leaves until the run goes on, are not there.
--
-- reads   routing, requests (request -> domain)
-- binds   none (a view)
-- yields  run_id, request_id, domain, phase, position [tokens, from 0], layer_id,
--         rank [1 = largest gate weight of the token], expert_id, gate_weight
-- order   none
select
    routing.run_id,
    routing.request_id,
    requests.domain,
    routing.phase,
    routing.position,
    routing.layer_id,
    unnest(generate_series(1, len(routing.expert_ids)))::integer as rank,
    unnest(routing.expert_ids) as expert_id,
    unnest(routing.gate_weights) as gate_weight
from routing
join requests using (run_id, request_id)
