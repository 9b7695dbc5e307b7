-- inputs/spark/budget_entries: inputs/budget_entries in the dialect of Spark.
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
        gate_weights as weights,
        explode(sequence(1, size(expert_ids))) as budget
    from routing_entries
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
