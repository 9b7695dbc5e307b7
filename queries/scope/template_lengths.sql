-- scope/template_lengths: how many tokens at the start and end all prompts have in common.
--
-- A chat template and a beginning-of-sequence token put the same tokens around every prompt. A
-- lake does not know which those are; here they are the token ids that are the same at the same
-- distance from the start, or from the end, in the prompts of all requests. One request, or prompts
-- that are all the same, tell nothing: then both are 0.
--
-- reads   tokens, scoped_requests, asked
-- binds   none
-- yields  template_prefix [tokens], template_suffix [tokens]
-- order   none, one row
with prompts as (
    select
        tokens.position,
        scoped_requests.num_prompt_tokens - 1 - tokens.position as from_end,
        tokens.token_id
    from tokens
    join asked using (run_id)
    join scoped_requests on tokens.request_id = scoped_requests.origin
    where tokens.position < scoped_requests.num_prompt_tokens
),
sizes as (
    select count(*) as num_requests, min(num_prompt_tokens) as shortest
    from scoped_requests
),
varying as (
    select
        (
            select min(position)
            from (
                select position
                from prompts
                group by position
                having count(distinct token_id) > 1
            )
        ) as first_position,
        (
            select min(from_end)
            from (
                select from_end
                from prompts
                group by from_end
                having count(distinct token_id) > 1
            )
        ) as first_from_end
)
select
    case
        when num_requests < 2 or first_position is null then 0
        else least(first_position, shortest)
    end as template_prefix,
    case
        when num_requests < 2 or first_position is null or first_from_end is null then 0
        else least(first_from_end, shortest - least(first_position, shortest))
    end as template_suffix
from varying
cross join sizes
