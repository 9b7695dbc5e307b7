-- router_saturation: the share of a token's experts that another run chooses for it too.
--
-- The other run is a checkpoint or variant of the same model on the same tokens. A token is
-- compared where both runs routed the same request at the same position and the scope holds no
-- earlier token that differs (generated texts part; tokens whose ids are not known count as
-- equal). Runs that share no token have 0 tokens and no values.
-- The null lets each token meet a random token of the other run; its exact mean, from the loads
-- of the compared tokens, is the closed form. k / E is what two even, independent routers share.
-- The first expert means nothing where the source of a run had no gate weights.
--
-- asks    How much of the routing is already that of another checkpoint?
-- source  OLMoE (arXiv 2409.02060) Eq. 5, there for k experts and for the first one
-- parts   same_tokens
-- reads   expert_choices, other_expert_choices, scoped_tokens, other_scoped_tokens, experts, model
-- binds   none
-- yields  layer_id, num_tokens [compared tokens], saturation [share of k],
--         saturation_closed_form [share of k], saturation_even [k / E],
--         top_agreement [share of tokens with the same first expert],
--         top_agreement_closed_form [share of tokens]
-- key     layer_id
-- values  saturation, top_agreement
-- null    pairs
-- order   layer_id
with met as (
    select
        one.request_id,
        one.position,
        one.layer_id,
        one.expert_id as top,
        two.expert_id as other_top
    from expert_choices as one
    join other_expert_choices as two
        on one.request_id = two.request_id
        and one.position = two.position
        and one.layer_id = two.layer_id
    join places on one.request_id = places.request_id and one.position = places.position
    where one.rank = 1
        and two.rank = 1
        and (places.first_difference is null or one.position < places.first_difference)
),
counts as (
    select
        layer_id,
        count(*) as num_tokens,
        sum(case when top = other_top then 1 else 0 end) as num_agreed
    from met
    group by layer_id
),
mine as (
    select met.layer_id, met.request_id, met.position, chosen.expert_id, chosen.rank
    from met
    join expert_choices as chosen
        on met.request_id = chosen.request_id
        and met.position = chosen.position
        and met.layer_id = chosen.layer_id
),
theirs as (
    select met.layer_id, met.request_id, met.position, chosen.expert_id, chosen.rank
    from met
    join other_expert_choices as chosen
        on met.request_id = chosen.request_id
        and met.position = chosen.position
        and met.layer_id = chosen.layer_id
),
common as (
    select mine.layer_id, count(*) as num_shared
    from mine
    join theirs
        on mine.request_id = theirs.request_id
        and mine.position = theirs.position
        and mine.layer_id = theirs.layer_id
        and mine.expert_id = theirs.expert_id
    group by mine.layer_id
),
loads as (
    select
        layer_id,
        expert_id,
        count(*) as num_chosen,
        sum(case when rank = 1 then 1 else 0 end) as num_first
    from mine
    group by layer_id, expert_id
),
other_loads as (
    select
        layer_id,
        expert_id,
        count(*) as num_chosen,
        sum(case when rank = 1 then 1 else 0 end) as num_first
    from theirs
    group by layer_id, expert_id
),
expected as (
    select
        loads.layer_id,
        sum(cast(loads.num_chosen as double) * other_loads.num_chosen) as num_chosen,
        sum(cast(loads.num_first as double) * other_loads.num_first) as num_first
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
    coalesce(counts.num_tokens, 0) as num_tokens,
    case when counts.num_tokens > 0 then
        coalesce(common.num_shared, 0) / (cast(counts.num_tokens as double) * model.top_k)
    end as saturation,
    case when counts.num_tokens > 0 then
        coalesce(expected.num_chosen, 0)
        / (cast(counts.num_tokens as double) * counts.num_tokens * model.top_k)
    end as saturation_closed_form,
    model.top_k / cast(model.num_experts as double) as saturation_even,
    counts.num_agreed / cast(counts.num_tokens as double) as top_agreement,
    case when counts.num_tokens > 0 then
        coalesce(expected.num_first, 0) / (cast(counts.num_tokens as double) * counts.num_tokens)
    end as top_agreement_closed_form
from layers
cross join model
left join counts on layers.layer_id = counts.layer_id
left join common on layers.layer_id = common.layer_id
left join expected on layers.layer_id = expected.layer_id
order by layers.layer_id
