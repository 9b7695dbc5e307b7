-- inputs/routing_entries: the choices of every token in the scope, as lists.
--
-- Without the tokens that begin and end all prompts, where those are left out.
--
-- reads   routing, asked, scoped_requests
-- binds   none (a view)
-- yields  origin [request], phase, position [tokens, from 0], layer_id,
--         expert_ids [list, by descending gate weight], gate_weights [list]
-- order   none
select
    scoped.origin,
    routing.phase,
    routing.position,
    routing.layer_id,
    routing.expert_ids,
    routing.gate_weights
from routing
join asked using (run_id)
join (
    select distinct origin, num_prompt_tokens
    from scoped_requests
) as scoped on routing.request_id = scoped.origin
where (
        asked.tokens = 'all'
        or routing.phase = asked.tokens
        or (asked.tokens = 'last-prompt' and routing.position = scoped.num_prompt_tokens - 1)
    )
    and not (
        routing.position < asked.template_prefix
        or (
            routing.position < scoped.num_prompt_tokens
            and routing.position >= scoped.num_prompt_tokens - asked.template_suffix
        )
    )
