-- perturbed_balance_losses: the balance losses of a clean and of a perturbed run, and the change.
--
-- The losses of balance_losses for each run: softmax of the logits, f by the largest probability,
-- P the mean probability, all tokens of the scope as one batch. The other run is of the same model
-- on perturbed inputs. The null exchanges the runs of whole requests, so requests should keep
-- their names when they are perturbed; `num_shared` says how many did.
--
-- asks    Does perturbed input make the router less balanced or less sure?
-- source  Robust Experts (arXiv 2509.05086), its code; it compares usage under clean and attacked
--         input, the change of the losses is ours
-- reads   expert_logits, other_expert_logits, experts, model, scoped_requests,
--         other_scoped_requests
-- binds   none
-- yields  layer_id, num_shared [requests of both runs], switch_loss, other_switch_loss,
--         switch_change [other - this], entropy_loss [nats], other_entropy_loss [nats],
--         entropy_change [other - this, nats], column_loss [nats], other_column_loss [nats],
--         column_change [other - this, nats]
-- key     layer_id
-- values  switch_change, entropy_change, column_change
-- null    runs
-- order   layer_id
with logits as (
    select 0 as run, request_id, position, layer_id, expert_id, logit
    from expert_logits
    union all
    select 1 as run, request_id, position, layer_id, expert_id, logit
    from other_expert_logits
),
largest as (
    select run, request_id, position, layer_id, max(logit) as logit
    from logits
    group by run, request_id, position, layer_id
),
tokens as (
    -- Hash joins: windows would sort every logit.
    select
        largest.run,
        largest.request_id,
        largest.position,
        largest.layer_id,
        largest.logit as largest,
        sum(exp(logits.logit - largest.logit)) as total,
        min(case when logits.logit = largest.logit then logits.expert_id end) as top
    from largest
    join logits
        on largest.run = logits.run
        and largest.request_id = logits.request_id
        and largest.position = logits.position
        and largest.layer_id = logits.layer_id
    group by
        largest.run, largest.request_id, largest.position, largest.layer_id, largest.logit
),
probabilities as (
    select
        logits.run,
        logits.layer_id,
        logits.expert_id,
        exp(logits.logit - tokens.largest) / tokens.total as p,
        case when logits.expert_id = tokens.top then 1 else 0 end as is_top
    from logits
    join tokens
        on logits.run = tokens.run
        and logits.request_id = tokens.request_id
        and logits.position = tokens.position
        and logits.layer_id = tokens.layer_id
),
means as (
    select
        run,
        layer_id,
        expert_id,
        avg(p) as p,
        avg(cast(is_top as double)) as f,
        avg(case when p > 0 then -p * ln(p) else 0 end) as h
    from probabilities
    group by run, layer_id, expert_id
),
losses as (
    select
        means.run,
        means.layer_id,
        max(model.num_experts) * sum(means.f * means.p) - 1 as switch_loss,
        sum(means.h) + sum(case when means.p > 0 then means.p * ln(means.p) else 0 end)
            as entropy_loss,
        sum(case when means.p > 0 then means.p * ln(means.p) else 0 end) as column_loss
    from means
    cross join model
    group by means.run, means.layer_id
),
shared as (
    select count(*) as num_shared
    from scoped_requests as one
    join other_scoped_requests as two on one.request_id = two.request_id
),
layers as (
    select distinct layer_id
    from experts
)
select
    layers.layer_id,
    shared.num_shared,
    one.switch_loss,
    two.switch_loss as other_switch_loss,
    two.switch_loss - one.switch_loss as switch_change,
    one.entropy_loss,
    two.entropy_loss as other_entropy_loss,
    two.entropy_loss - one.entropy_loss as entropy_change,
    one.column_loss,
    two.column_loss as other_column_loss,
    two.column_loss - one.column_loss as column_change
from layers
cross join shared
left join losses as one on layers.layer_id = one.layer_id and one.run = 0
left join losses as two on layers.layer_id = two.layer_id and two.run = 1
order by layers.layer_id
