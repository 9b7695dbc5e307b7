-- inputs/spark/candidate_entries: inputs/candidate_entries in the dialect of Spark.
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
        candidates.scores as weights,
        explode(sequence(1, size(candidates.expert_ids))) as budget
    from candidates
    join asked on candidates.run_id = asked.run_id
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
wholes as (
    select
        origin,
        layer_id,
        budget,
        aggregate(
            slice(weights, 1, budget), cast(0 as double), (total, weight) -> total + weight
        ) as whole,
        explode(arrays_zip(slice(expert_ids, 1, budget), slice(weights, 1, budget))) as entry
    from budgets
),
kept as (
    select
        origin,
        layer_id,
        budget,
        nullif(whole, 0) as whole,
        entry.`0` as expert_id,
        cast(entry.`1` as double) as weight
    from wholes
)
select
    origin,
    layer_id,
    budget,
    expert_id,
    count(*) as num_choices,
    sum(weight) as weight_sum,
    coalesce(sum(weight / whole), 0) as share_sum
from kept
group by origin, layer_id, budget, expert_id
