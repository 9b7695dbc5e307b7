-- audit/softmax: summed probability of each expert over a request's tokens, in one layer.
--
-- source  COMMITTEEAUDIT (arXiv 2601.03425 v2) Eq. 3
-- reads   router_logits, requests, numbered: requests that count, by request_id
-- binds   $run_id, $layer_id
--         $tokens: last-prompt, prompt, generated, or all (prompt and generated)
-- yields  request_number, expert_id, num_tokens [tokens], weight_sum [probability]
-- order   request_number, expert_id
with scoped as (
    select numbered.request_number, logits, list_max(logits)::double as largest
    from router_logits
    join numbered on router_logits.request_id = numbered.request_id
    join requests
        on router_logits.run_id = requests.run_id
        and router_logits.request_id = requests.request_id
    where router_logits.run_id = $run_id
        and layer_id = $layer_id
        and (
            $tokens = 'all'
            or ($tokens = 'prompt' and position < num_prompt_tokens)
            or ($tokens = 'generated' and position >= num_prompt_tokens)
            or ($tokens = 'last-prompt' and position = num_prompt_tokens - 1)
        )
),
powers as (
    select
        request_number,
        list_transform(logits, lambda logit: exp(logit::double - largest)) as parts
    from scoped
),
entries as (
    select
        request_number,
        list_sum(parts) as whole,
        unnest(generate_series(0, len(parts) - 1)) as expert_id,
        unnest(parts) as part
    from powers
)
select request_number, expert_id, count(*) as num_tokens, sum(part / whole) as weight_sum
from entries
group by request_number, expert_id
order by request_number, expert_id
