-- inputs/token_entries: the tokens of the requests that count, in the scope.
--
-- reads   tokens, asked, scoped_requests
-- binds   none (a view)
-- yields  origin [request], phase, position [tokens, from 0], token_id
-- order   none
select scoped.origin, tokens.phase, tokens.position, tokens.token_id
from tokens
join asked using (run_id)
join (
    select distinct origin, num_prompt_tokens
    from scoped_requests
) as scoped on tokens.request_id = scoped.origin
where (
        asked.tokens = 'all'
        or tokens.phase = asked.tokens
        or (asked.tokens = 'last-prompt' and tokens.position = scoped.num_prompt_tokens - 1)
    )
    and not (
        tokens.position < asked.template_prefix
        or (
            tokens.position < scoped.num_prompt_tokens
            and tokens.position >= scoped.num_prompt_tokens - asked.template_suffix
        )
    )
