-- parts/same_tokens: the tokens of two runs, and where each request first has another one.
--
-- reads   scoped_tokens, other_scoped_tokens
-- binds   none
-- yields  places
-- order   none
places as (
    select
        one.request_id,
        one.position,
        min(
            case
                when one.token_id <> two.token_id and one.token_id >= 0 and two.token_id >= 0
                    then one.position
            end
        ) over (partition by one.request_id) as first_difference
    from scoped_tokens as one
    join other_scoped_tokens as two
        on one.request_id = two.request_id and one.position = two.position
)
