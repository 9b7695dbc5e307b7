-- inputs/expert_choices: one row per choice of an expert in the scope.
--
-- In the DuckDB dialect: the unnested columns advance together.
--
-- reads   routed_tokens
-- binds   none (a view)
-- yields  request_id, origin, domain, phase, position [tokens, from 0], layer_id,
--         rank [1 = largest gate weight of the token], expert_id, gate_weight
-- order   none
select
    request_id,
    origin,
    domain,
    phase,
    position,
    layer_id,
    unnest(generate_series(1, len(expert_ids)))::integer as rank,
    unnest(expert_ids) as expert_id,
    unnest(gate_weights)::double as gate_weight
from routed_tokens
