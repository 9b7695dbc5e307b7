-- inputs/expert_logits: one row per token of the scope, layer and expert, chosen or not.
--
-- In the DuckDB dialect: the unnested columns advance together.
--
-- reads   logit_entries, scoped_requests
-- binds   none (a view)
-- yields  request_id, origin, domain, position [tokens, from 0], layer_id, expert_id,
--         logit [of the router]
-- order   none
select
    scoped_requests.request_id,
    origin,
    scoped_requests.domain,
    logit_entries.position,
    logit_entries.layer_id,
    unnest(generate_series(0, len(logit_entries.logits) - 1))::smallint as expert_id,
    unnest(logit_entries.logits)::double as logit
from logit_entries
join scoped_requests using (origin)
