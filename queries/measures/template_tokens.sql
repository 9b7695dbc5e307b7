-- template_tokens: the token ids that begin, or end, every prompt.
--
-- A chat template puts the same tokens around every prompt, and the last prompt token is then the
-- same in all requests: what a last-prompt scope shows may be how that one token is routed. Here
-- are the positions, counted from the start and from the end, where the prompts of all requests
-- have one token id. `--exclude-template` leaves them out of any measure.
--
-- asks    Which prompt tokens are the same in every request?
-- source  COMMITTEEAUDIT's code reads the last prompt token, which a template fixes
-- reads   scoped_tokens, scoped_requests
-- binds   none
-- yields  side [start or end], distance [tokens from that side, from 0], token_id,
--         num_requests [requests]
-- key     side, distance
-- values  none
-- null    none: a list of token ids, nothing is measured
-- order   side descending, distance
with prompts as (
    select
        scoped_tokens.position,
        scoped_requests.num_prompt_tokens - 1 - scoped_tokens.position as from_end,
        scoped_tokens.token_id
    from scoped_tokens
    join scoped_requests on scoped_tokens.request_id = scoped_requests.request_id
    where scoped_tokens.phase = 'prompt'
),
sizes as (
    select count(*) as num_requests
    from scoped_requests
),
placed as (
    select 'start' as side, position as distance, token_id
    from prompts
    union all
    select 'end' as side, from_end as distance, token_id
    from prompts
),
shared as (
    select side, distance, min(token_id) as token_id, count(*) as num_requests
    from placed
    group by side, distance
    having count(distinct token_id) = 1 and min(token_id) >= 0
),
breaks as (
    select side, min(distance) as distance
    from placed
    group by side, distance
    having count(distinct token_id) > 1
),
ends as (
    select side, min(distance) as distance
    from breaks
    group by side
)
select
    shared.side,
    shared.distance,
    shared.token_id,
    cast(shared.num_requests as bigint) as num_requests
from shared
cross join sizes
left join ends on shared.side = ends.side
where shared.num_requests = sizes.num_requests
    and sizes.num_requests > 1
    and (ends.distance is null or shared.distance < ends.distance)
order by shared.side desc, shared.distance
