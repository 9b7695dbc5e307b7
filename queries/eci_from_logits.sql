-- eci_from_logits: mean probability of each expert over the tokens of a domain, all experts.
--
-- The Expert Contribution Index as printed: of the softmax over all experts, chosen or not. Only of
-- runs that recorded router logits (`tracer capture --router-logits`), and of complete requests.
-- A model that scores by another function than softmax is given a softmax all the same.
--
-- source  COMMITTEEAUDIT (arXiv 2601.03425 v2) Eq. 2 and 3
-- reads   router_logits, requests
-- binds   $run_id
--         $tokens: last-prompt, prompt, generated, or all (prompt and generated)
--         $domains: JSON object {old label: new domain}; a request is looked up by its label
--         `subject`, then by its domain, and else keeps its domain; '{}' changes nothing
-- yields  layer_id, domain, expert_id, num_tokens [tokens of the domain], eci [probability per
--         token]
-- order   layer_id, domain, eci descending, expert_id
with renamed as (
    select $domains::json::map(varchar, varchar) as names
),
counted as (
    select
        request_id,
        coalesce(names[labels['subject']], names[domain], domain) as domain,
        num_prompt_tokens
    from requests, renamed
    where run_id = $run_id and status = 'complete'
),
scoped as (
    select layer_id, counted.domain, logits, list_max(logits)::double as largest
    from router_logits
    join counted using (request_id)
    where run_id = $run_id
        and (
            $tokens = 'all'
            or ($tokens = 'prompt' and position < num_prompt_tokens)
            or ($tokens = 'generated' and position >= num_prompt_tokens)
            or ($tokens = 'last-prompt' and position = num_prompt_tokens - 1)
        )
),
powers as (
    select
        layer_id,
        domain,
        list_transform(logits, lambda logit: exp(logit::double - largest)) as parts
    from scoped
),
entries as (
    select
        layer_id,
        domain,
        list_sum(parts) as whole,
        unnest(generate_series(0, len(parts) - 1)) as expert_id,
        unnest(parts) as part
    from powers
)
select
    layer_id,
    domain,
    expert_id::smallint as expert_id,
    count(*) as num_tokens,
    sum(part / whole) / count(*) as eci
from entries
group by layer_id, domain, expert_id
order by layer_id, domain, eci desc, expert_id
