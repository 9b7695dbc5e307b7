-- expert_choice_agreement: what of the routing would stand if experts chose their tokens.
--
-- Expert choice: of the n tokens of a layer in the scope, taken as one batch, each expert takes
-- the c = n k / E (rounded up) with its largest probability, the softmax of the token's logits;
-- equal ones by request and position. A token that no expert takes is dropped. An expert's choices
-- depend on which tokens share the batch, so on the scope.
-- The null moves each expert's logits to other tokens and keeps what was chosen. A choice is then
-- made again with probability c / n, exactly; a token is dropped with about (1 - c / n)^E, as if
-- experts chose on their own.
--
-- asks    Would experts choose the tokens that chose them, and which tokens would be left?
-- source  USMoE (arXiv 2503.22996) for the two competitions, its normalisation is not printed;
--         capacity and softmax as in Expert Choice (arXiv 2202.09368)
-- reads   expert_logits, expert_choices, experts, model
-- binds   none
-- yields  layer_id, num_tokens [tokens], capacity [tokens per expert],
--         agreement [share of executed choices], agreement_closed_form [share of choices],
--         dropped [share of tokens], dropped_closed_form [share of tokens]
-- key     layer_id
-- values  agreement, dropped
-- null    logits
-- order   layer_id
with largest as (
    select request_id, position, layer_id, max(logit) as logit
    from expert_logits
    group by request_id, position, layer_id
),
tokens as (
    -- Hash joins: windows would sort every logit.
    select
        largest.request_id,
        largest.position,
        largest.layer_id,
        largest.logit as largest,
        sum(exp(expert_logits.logit - largest.logit)) as total
    from largest
    join expert_logits
        on largest.request_id = expert_logits.request_id
        and largest.position = expert_logits.position
        and largest.layer_id = expert_logits.layer_id
    group by largest.request_id, largest.position, largest.layer_id, largest.logit
),
sizes as (
    select
        tokens.layer_id,
        cast(count(*) as double) as num_tokens,
        ceil(cast(count(*) as double) * max(model.top_k) / max(model.num_experts)) as capacity
    from tokens
    cross join model
    group by tokens.layer_id
),
ranked as (
    select
        expert_logits.request_id,
        expert_logits.position,
        expert_logits.layer_id,
        expert_logits.expert_id,
        row_number() over (
            partition by expert_logits.layer_id, expert_logits.expert_id
            order by
                round(exp(expert_logits.logit - tokens.largest) / tokens.total, 15) desc,
                expert_logits.request_id,
                expert_logits.position
        ) as place
    from expert_logits
    join tokens
        on expert_logits.request_id = tokens.request_id
        and expert_logits.position = tokens.position
        and expert_logits.layer_id = tokens.layer_id
),
taken as (
    select ranked.request_id, ranked.position, ranked.layer_id, ranked.expert_id
    from ranked
    join sizes on ranked.layer_id = sizes.layer_id
    where ranked.place <= sizes.capacity
),
kept as (
    select layer_id, cast(count(*) as double) as num_tokens
    from (select distinct request_id, position, layer_id from taken) as served
    group by layer_id
),
executed as (
    select
        expert_choices.layer_id,
        cast(count(*) as double) as num_choices,
        count(taken.expert_id) as num_agreed
    from expert_choices
    left join taken
        on expert_choices.request_id = taken.request_id
        and expert_choices.position = taken.position
        and expert_choices.layer_id = taken.layer_id
        and expert_choices.expert_id = taken.expert_id
    group by expert_choices.layer_id
),
layers as (
    select distinct layer_id
    from experts
)
select
    layers.layer_id,
    cast(coalesce(sizes.num_tokens, 0) as bigint) as num_tokens,
    cast(sizes.capacity as bigint) as capacity,
    executed.num_agreed / executed.num_choices as agreement,
    sizes.capacity / sizes.num_tokens as agreement_closed_form,
    1 - kept.num_tokens / sizes.num_tokens as dropped,
    power(1 - sizes.capacity / sizes.num_tokens, model.num_experts) as dropped_closed_form
from layers
cross join model
left join sizes on layers.layer_id = sizes.layer_id
left join kept on layers.layer_id = kept.layer_id
left join executed on layers.layer_id = executed.layer_id
order by layers.layer_id
