-- routing_fluctuation: the share of tokens that another run sends to another expert first.
--
-- The first expert has the token's largest gate_weight. A token is compared where both runs routed
-- the same request at the same position and the scope holds no earlier token that differs (tokens
-- whose ids are not known count as equal). Runs that share no token have 0 tokens and no values.
-- The null lets each token meet a random token of the other run; its exact mean, from the loads of
-- the compared tokens, is the closed form: what is left of a router that has forgotten each token
-- but keeps its loads. 1 - 1 / E is that of even, independent routers.
--
-- asks    How many tokens go to another expert than in the other checkpoint?
-- source  StableMoE (arXiv 2204.08396), there against the last checkpoint
-- parts   same_tokens
-- reads   expert_choices, other_expert_choices, scoped_tokens, other_scoped_tokens, experts, model
-- binds   none
-- yields  layer_id, num_tokens [compared tokens], fluctuation [share of tokens],
--         fluctuation_closed_form [share of tokens], fluctuation_even [1 - 1 / E],
--         set_fluctuation [share of tokens with another set of k experts]
-- key     layer_id
-- values  fluctuation, set_fluctuation
-- null    pairs
-- order   layer_id
with pairs as (
    select
        one.request_id,
        one.position,
        one.layer_id,
        sum(case when one.rank = 1 and two.rank = 1 and one.expert_id = two.expert_id
            then 1 else 0 end) as same_first,
        sum(case when one.expert_id = two.expert_id then 1 else 0 end) as num_shared,
        sum(case when two.rank = 1 then 1 else 0 end) as num_chosen
    from expert_choices as one
    join other_expert_choices as two
        on one.request_id = two.request_id
        and one.position = two.position
        and one.layer_id = two.layer_id
    join places on one.request_id = places.request_id and one.position = places.position
    where places.first_difference is null or one.position < places.first_difference
    group by one.request_id, one.position, one.layer_id
),
counts as (
    select
        layer_id,
        cast(count(*) as double) as num_tokens,
        sum(1 - same_first) as num_moved,
        sum(case when num_shared < num_chosen then 1 else 0 end) as num_changed
    from pairs
    group by layer_id
),
loads as (
    select pairs.layer_id, chosen.expert_id, count(*) as num_tokens
    from pairs
    join expert_choices as chosen
        on pairs.request_id = chosen.request_id
        and pairs.position = chosen.position
        and pairs.layer_id = chosen.layer_id
    where chosen.rank = 1
    group by pairs.layer_id, chosen.expert_id
),
other_loads as (
    select pairs.layer_id, chosen.expert_id, count(*) as num_tokens
    from pairs
    join other_expert_choices as chosen
        on pairs.request_id = chosen.request_id
        and pairs.position = chosen.position
        and pairs.layer_id = chosen.layer_id
    where chosen.rank = 1
    group by pairs.layer_id, chosen.expert_id
),
expected as (
    select
        loads.layer_id,
        sum(cast(loads.num_tokens as double) * other_loads.num_tokens) as num_pairs
    from loads
    join other_loads
        on loads.layer_id = other_loads.layer_id and loads.expert_id = other_loads.expert_id
    group by loads.layer_id
),
layers as (
    select distinct layer_id
    from experts
)
select
    layers.layer_id,
    cast(coalesce(counts.num_tokens, 0) as bigint) as num_tokens,
    counts.num_moved / counts.num_tokens as fluctuation,
    case when counts.num_tokens > 0 then
        1 - coalesce(expected.num_pairs, 0) / (counts.num_tokens * counts.num_tokens)
    end as fluctuation_closed_form,
    1 - 1 / cast(model.num_experts as double) as fluctuation_even,
    counts.num_changed / counts.num_tokens as set_fluctuation
from layers
cross join model
left join counts on layers.layer_id = counts.layer_id
left join expected on layers.layer_id = expected.layer_id
order by layers.layer_id
