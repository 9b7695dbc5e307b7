-- inputs/candidate_entries: what each request used in the scope if its tokens had other budgets.
--
-- For every budget from 1 to M, of the best candidates of each token, those not chosen among them.
-- A score is what candidates are ranked by; only of a softmax router without a selection bias is it
-- the gate weight before it is rescaled. In the DuckDB dialect: the unnested columns advance
-- together.
--
-- reads   candidates, asked, scoped_requests
-- binds   none (a view)
-- yields  origin [request], layer_id, budget [experts that a token keeps], expert_id,
--         num_choices [tokens that keep it], weight_sum [sum of scores],
--         share_sum [sum of scores over the sum of those that the token keeps]
-- order   none
with budgets as (
    select
        scoped.origin,
        candidates.layer_id,
        candidates.expert_ids,
        candidates.scores::double[] as weights,
        unnest(generate_series(1, len(candidates.expert_ids)))::integer as budget
    from candidates
    join asked using (run_id)
    join (
        select distinct origin, num_prompt_tokens
        from scoped_requests
    ) as scoped on candidates.request_id = scoped.origin
    where (
            asked.tokens = 'all'
            or (asked.tokens = 'prompt' and candidates.position < scoped.num_prompt_tokens)
            or (asked.tokens = 'generated' and candidates.position >= scoped.num_prompt_tokens)
            or (asked.tokens = 'last-prompt' and candidates.position = scoped.num_prompt_tokens - 1)
        )
        and not (
            candidates.position < asked.template_prefix
            or (
                candidates.position < scoped.num_prompt_tokens
                and candidates.position >= scoped.num_prompt_tokens - asked.template_suffix
            )
        )
),
kept as (
    select
        origin,
        layer_id,
        budget,
        nullif(list_sum(weights[1:budget]), 0) as whole,
        unnest(expert_ids[1:budget]) as expert_id,
        unnest(weights[1:budget]) as weight
    from budgets
)
select
    origin,
    layer_id,
    budget,
    expert_id,
    count(*)::bigint as num_choices,
    sum(weight) as weight_sum,
    coalesce(sum(weight / whole), 0) as share_sum
from kept
group by origin, layer_id, budget, expert_id
