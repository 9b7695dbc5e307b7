-- inputs/spark/cosine_entries: inputs/cosine_entries without lists, for Spark.
--
-- reads   routers, asked
-- binds   none (a view)
-- yields  layer_id, expert_id, other_expert_id, cosine [of the two rows of the router matrix]
-- order   none
with listed as (
    select
        routers.layer_id,
        routers.hidden_size,
        posexplode(routers.weight) as (place, weight)
    from routers
    join asked on routers.run_id = asked.run_id
),
weights as (
    select
        layer_id,
        cast(place div hidden_size as smallint) as expert_id,
        place % hidden_size as dimension,
        cast(weight as double) as weight
    from listed
),
lengths as (
    select layer_id, expert_id, sqrt(sum(weight * weight)) as length
    from weights
    group by layer_id, expert_id
),
products as (
    select
        one.layer_id,
        one.expert_id,
        two.expert_id as other_expert_id,
        sum(one.weight * two.weight) as product
    from weights as one
    join weights as two
        on one.layer_id = two.layer_id
        and one.dimension = two.dimension
        and one.expert_id <> two.expert_id
    group by one.layer_id, one.expert_id, two.expert_id
)
select
    products.layer_id,
    products.expert_id,
    products.other_expert_id,
    products.product / nullif(mine.length * theirs.length, 0) as cosine
from products
join lengths as mine
    on products.layer_id = mine.layer_id and products.expert_id = mine.expert_id
join lengths as theirs
    on products.layer_id = theirs.layer_id and products.other_expert_id = theirs.expert_id
