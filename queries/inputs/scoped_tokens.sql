-- inputs/scoped_tokens: the tokens in the scope with their domain.
--
-- The last sampled token is never routed, so it has no row in expert_choices.
--
-- reads   token_entries, scoped_requests
-- binds   none (a view)
-- yields  request_id, origin, domain, phase, position [tokens, from 0], token_id
-- order   none
select
    scoped_requests.request_id,
    origin,
    scoped_requests.domain,
    token_entries.phase,
    token_entries.position,
    token_entries.token_id
from token_entries
join scoped_requests using (origin)
