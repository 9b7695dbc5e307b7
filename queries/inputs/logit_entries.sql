-- inputs/logit_entries: the router logits of every token in the scope, as lists.
--
-- reads   router_logits, asked, scoped_requests
-- binds   none (a view)
-- yields  origin [request], position [tokens, from 0], layer_id, logits [list, by expert id]
-- order   none
select scoped.origin, router_logits.position, router_logits.layer_id, router_logits.logits
from router_logits
join asked using (run_id)
join (
    select distinct origin, num_prompt_tokens
    from scoped_requests
) as scoped on router_logits.request_id = scoped.origin
where (
        asked.tokens = 'all'
        or (asked.tokens = 'prompt' and router_logits.position < scoped.num_prompt_tokens)
        or (asked.tokens = 'generated' and router_logits.position >= scoped.num_prompt_tokens)
        or (asked.tokens = 'last-prompt' and router_logits.position = scoped.num_prompt_tokens - 1)
    )
    and not (
        router_logits.position < asked.template_prefix
        or (
            router_logits.position < scoped.num_prompt_tokens
            and router_logits.position >= scoped.num_prompt_tokens - asked.template_suffix
        )
    )
