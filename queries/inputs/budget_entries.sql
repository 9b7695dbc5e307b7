-- inputs/budget_entries: what each request used in the scope if its tokens kept fewer experts.
--
-- For every budget from 1 to k, of the first experts of each token by gate weight. In the DuckDB
-- dialect: the unnested columns advance together.
--
-- reads   routing_entries
-- binds   none (a view)
-- yields  origin [request], layer_id, budget [experts that a token keeps], expert_id,
--         num_choices [choices], weight_sum [sum of gate weights],
--         share_sum [sum of gate weights over the sum of those that the token keeps]
-- order   none
with budgets as (
    select
        origin,
        layer_id,
        expert_ids,
        gate_weights::double[] as weights,
        unnest(generate_series(1, len(expert_ids)))::integer as budget
    from routing_entries
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
