-- inputs/cosine_entries: the cosine of every two different router rows of a layer.
--
-- In the DuckDB dialect: lists are cut and multiplied. A row of zeros has no cosine.
--
-- reads   routers, asked
-- binds   none (a view)
-- yields  layer_id, expert_id, other_expert_id, cosine [of the two rows of the router matrix]
-- order   none
with ids as (
    select
        layer_id,
        hidden_size,
        weight,
        unnest(generate_series(0, routers.num_experts - 1)) as expert_id
    from routers
    join asked using (run_id)
),
listed as (
    select
        layer_id,
        expert_id,
        list_slice(weight, expert_id * hidden_size + 1, (expert_id + 1) * hidden_size)::double[]
            as weights
    from ids
),
lengths as (
    select layer_id, expert_id, weights, nullif(list_inner_product(weights, weights), 0) as square
    from listed
),
pairs as (
    select
        layer_id,
        one.expert_id as one_id,
        two.expert_id as two_id,
        list_inner_product(one.weights, two.weights) / sqrt(one.square * two.square) as cosine
    from lengths as one
    join lengths as two using (layer_id)
    where one.expert_id < two.expert_id
)
select layer_id, one_id::smallint as expert_id, two_id::smallint as other_expert_id, cosine
from pairs
union all
select layer_id, two_id::smallint as expert_id, one_id::smallint as other_expert_id, cosine
from pairs
