-- scope/last_prompt_tokens: how many different tokens end the prompts.
--
-- reads   tokens, scoped_requests, asked
-- binds   none
-- yields  num_requests [requests], num_tokens [different token ids that are known]
-- order   none, one row
select
    count(*) as num_requests,
    count(distinct case when token_id >= 0 then token_id end) as num_tokens
from tokens
join asked using (run_id)
join scoped_requests on tokens.request_id = scoped_requests.origin
where tokens.position = scoped_requests.num_prompt_tokens - 1
