-- router_confidence: how sure the router of each layer is.
--
-- The probabilities are the softmax of the token's logits over all experts, whatever scoring
-- function the model applies. The margin is what the last chosen expert is ahead of the first that
-- is not, by logit alone. alpha is of a symmetric Dirichlet distribution, by moments: with v the
-- mean square of p - 1 / E over all tokens and experts, E alpha + 1 = (1 / E) (1 - 1 / E) / v. Less
-- than 1 is sparser than even over all mixtures. It also falls where the router prefers some
-- experts for all tokens. dirichlet_fit has the distance of each expert's probabilities from that
-- prior.
-- The null lets each expert keep its logits but on other tokens, so that a router without any
-- competition between experts is the chance level. Last places are cut to 11 bits on capture.
--
-- asks    How sure is the router of its choice, and by how much?
-- source  DPSL (arXiv 2510.01185) for probabilities as Dirichlet; ST-MoE (arXiv 2202.08906) for
--         entropy against log E; margin z(k) - z(k + 1) is ours
-- reads   expert_logits, experts, model
-- binds   none
-- yields  layer_id, num_tokens [tokens], max_probability [mean largest probability],
--         entropy [mean of tokens, nats], relative_entropy [entropy over ln E],
--         margin [mean, logits], alpha [Dirichlet concentration per expert]
-- key     layer_id
-- values  max_probability, entropy, relative_entropy, margin, alpha
-- null    logits
-- order   layer_id
with placed as (
    -- One ordering serves both columns.
    select
        request_id,
        position,
        layer_id,
        logit,
        row_number() over (
            partition by request_id, position, layer_id order by logit desc, expert_id
        ) as place,
        first_value(logit) over (
            partition by request_id, position, layer_id order by logit desc, expert_id
        ) as largest
    from expert_logits
),
sums as (
    -- With weights w = exp(logit - largest) and their sum S: p = w / S, the largest p is 1 / S.
    select
        placed.request_id,
        placed.position,
        placed.layer_id,
        sum(exp(placed.logit - placed.largest)) as total,
        sum(exp(placed.logit - placed.largest) * (placed.logit - placed.largest)) as weighted,
        sum(exp(2 * (placed.logit - placed.largest))) as squared,
        sum(
            case
                when placed.place = model.top_k then placed.logit
                when placed.place = model.top_k + 1 then -placed.logit
                else 0
            end
        ) as margin,
        max(cast(model.num_experts as double)) as num_experts,
        max(model.top_k) as top_k
    from placed
    cross join model
    group by placed.request_id, placed.position, placed.layer_id
),
tokens as (
    select
        layer_id,
        1 / total as max_probability,
        ln(total) - weighted / total as entropy,
        case when num_experts > top_k then margin end as margin,
        (squared / (total * total) - 1 / num_experts) / num_experts as square
    from sums
),
means as (
    select
        layer_id,
        count(*) as num_tokens,
        avg(max_probability) as max_probability,
        avg(entropy) as entropy,
        avg(margin) as margin,
        avg(square) as square
    from tokens
    group by layer_id
),
layers as (
    select distinct layer_id
    from experts
)
select
    layers.layer_id,
    coalesce(means.num_tokens, 0) as num_tokens,
    means.max_probability,
    means.entropy,
    means.entropy / nullif(ln(model.num_experts), 0) as relative_entropy,
    means.margin,
    (
        (model.num_experts - 1) / (cast(model.num_experts as double) * model.num_experts)
        / nullif(means.square, 0) - 1
    ) / model.num_experts as alpha
from layers
cross join model
left join means on layers.layer_id = means.layer_id
order by layers.layer_id
