-- audit/budget_candidates: ECI where every token had fewer or more experts, from candidates.
--
-- Candidates stand by descending selection score, which of a softmax router is the gate weight
-- before it is rescaled.
--
-- source  COMMITTEEAUDIT (arXiv 2601.03425 v2) section 4.3 and Figure 5, Eq. 2 on the experts kept
-- reads   candidates, requests, numbered: requests that count, by request_id, with domain_number
-- binds   $run_id
--         $tokens: last-prompt, prompt, generated, or all (prompt and generated)
--         $budget: experts kept of each token
--         $renormalise: whether the kept weights are rescaled to sum to 1
-- yields  layer_id, domain_number, expert_id, contribution [gate weight per token]
-- order   layer_id, domain_number, expert_id
with scoped as (
    select
        candidates.layer_id,
        numbered.domain_number,
        candidates.expert_ids[1:$budget] as expert_ids,
        candidates.scores[1:$budget]::double[] as weights
    from candidates
    join numbered on candidates.request_id = numbered.request_id
    join requests
        on candidates.run_id = requests.run_id and candidates.request_id = requests.request_id
    where candidates.run_id = $run_id
        and (
            $tokens = 'all'
            or ($tokens = 'prompt' and candidates.position < requests.num_prompt_tokens)
            or ($tokens = 'generated' and candidates.position >= requests.num_prompt_tokens)
            or ($tokens = 'last-prompt' and candidates.position = requests.num_prompt_tokens - 1)
        )
),
sizes as (
    select layer_id, domain_number, count(*) as num_tokens
    from scoped
    group by layer_id, domain_number
),
kept as (
    select
        layer_id,
        domain_number,
        case when $renormalise then nullif(list_sum(weights), 0) else 1 end as whole,
        unnest(expert_ids) as expert_id,
        unnest(weights) as weight
    from scoped
)
select
    kept.layer_id,
    kept.domain_number,
    kept.expert_id,
    coalesce(sum(weight / whole), 0) / any_value(num_tokens) as contribution
from kept
join sizes on kept.layer_id = sizes.layer_id and kept.domain_number = sizes.domain_number
group by kept.layer_id, kept.domain_number, kept.expert_id
order by kept.layer_id, kept.domain_number, kept.expert_id
