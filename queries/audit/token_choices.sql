-- audit/token_choices: what every token of the requests that count chose, in one layer.
--
-- reads   routing, tokens, requests, numbered: requests that count, by request_id
-- binds   $run_id, $layer_id
--         $tokens: last-prompt, prompt, generated, or all (prompt and generated)
-- yields  request_number, token_id, expert_ids [list], gate_weights [list]
-- order   request_number, position
select numbered.request_number, tokens.token_id, routing.expert_ids, routing.gate_weights
from routing
join numbered on routing.request_id = numbered.request_id
join requests on routing.run_id = requests.run_id and routing.request_id = requests.request_id
join tokens
    on routing.run_id = tokens.run_id
    and routing.request_id = tokens.request_id
    and routing.position = tokens.position
where routing.run_id = $run_id
    and routing.layer_id = $layer_id
    and (
        $tokens = 'all'
        or ($tokens = 'prompt' and routing.position < requests.num_prompt_tokens)
        or ($tokens = 'generated' and routing.position >= requests.num_prompt_tokens)
        or ($tokens = 'last-prompt' and routing.position = requests.num_prompt_tokens - 1)
    )
order by numbered.request_number, routing.position
