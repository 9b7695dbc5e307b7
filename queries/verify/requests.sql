-- verify/requests: requests whose own row cannot be true.
--
-- reads   requests
-- binds   $run_id
-- yields  request_id, layer_id [null], detail
-- order   request_id, detail
select request_id, null::smallint as layer_id, count(*) || ' rows in requests' as detail
from requests
where run_id = $run_id
group by request_id
having count(*) > 1
union all
select
    request_id,
    null,
    num_prompt_tokens || ' prompt, ' || num_generated_tokens || ' generated, '
        || cached_prefix_tokens || ' cached tokens, status ' || status
from requests
where run_id = $run_id
    and (
        num_prompt_tokens < 0
        or num_generated_tokens < 0
        or cached_prefix_tokens < 0
        or cached_prefix_tokens > num_prompt_tokens
        or status not in ('complete', 'skipped', 'aborted', 'uncaptured')
    )
order by request_id, detail
