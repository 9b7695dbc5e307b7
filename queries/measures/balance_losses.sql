-- balance_losses: the losses that training uses to balance experts, of the recorded logits.
--
-- The probabilities are the softmax of the token's logits over all experts; f is the share of
-- tokens whose largest probability is the expert's (equal ones: the smaller id), P the mean
-- probability. The switch loss is E sum(f P) - 1, 0 when balanced. The entropy loss is the mean
-- entropy of the tokens less the entropy of P: lower where tokens are sure and differ. The column
-- loss is less the entropy of P, -ln E when balanced. All tokens of the scope are one batch;
-- losses of small batches are larger.
-- The null deals each token's probabilities anew among the experts: no expert is preferred, every
-- token is as sure as it was. Its exact mean is (E mean(max p) - 1) / n for the switch loss.
--
-- asks    How balanced is the router, in the terms of its training losses?
-- source  Robust Experts (arXiv 2509.05086), its code; Switch (arXiv 2101.03961) Eq. 4 to 6
-- reads   expert_logits, experts, model
-- binds   none
-- yields  layer_id, num_tokens [tokens], switch_loss, switch_loss_closed_form,
--         entropy_loss [nats, 0 or less], column_loss [nats, 0 or less]
-- key     layer_id
-- values  switch_loss, entropy_loss, column_loss
-- null    uniform
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
        sum(exp(expert_logits.logit - largest.logit)) as total,
        min(case when expert_logits.logit = largest.logit then expert_logits.expert_id end) as top
    from largest
    join expert_logits
        on largest.request_id = expert_logits.request_id
        and largest.position = expert_logits.position
        and largest.layer_id = expert_logits.layer_id
    group by largest.request_id, largest.position, largest.layer_id, largest.logit
),
probabilities as (
    select
        expert_logits.layer_id,
        expert_logits.expert_id,
        exp(expert_logits.logit - tokens.largest) / tokens.total as p,
        case when expert_logits.expert_id = tokens.top then 1 else 0 end as is_top
    from expert_logits
    join tokens
        on expert_logits.request_id = tokens.request_id
        and expert_logits.position = tokens.position
        and expert_logits.layer_id = tokens.layer_id
),
means as (
    select
        layer_id,
        expert_id,
        avg(p) as p,
        avg(cast(is_top as double)) as f,
        avg(case when p > 0 then -p * ln(p) else 0 end) as h,
        avg(is_top * p) as largest,
        count(*) as num_tokens
    from probabilities
    group by layer_id, expert_id
),
sums as (
    select
        layer_id,
        max(num_tokens) as num_tokens,
        sum(f * p) as balance,
        sum(h) as entropy,
        sum(case when p > 0 then -p * ln(p) else 0 end) as column_entropy,
        sum(largest) as largest
    from means
    group by layer_id
),
layers as (
    select distinct layer_id
    from experts
)
select
    layers.layer_id,
    coalesce(sums.num_tokens, 0) as num_tokens,
    model.num_experts * sums.balance - 1 as switch_loss,
    (model.num_experts * sums.largest - 1) / sums.num_tokens as switch_loss_closed_form,
    sums.entropy - sums.column_entropy as entropy_loss,
    -sums.column_entropy as column_loss
from layers
cross join model
left join sums on layers.layer_id = sums.layer_id
order by layers.layer_id
