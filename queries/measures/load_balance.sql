-- load_balance: how evenly the choices of a layer are spread over its experts.
--
-- load is an expert's share of its layer's choices; experts that are never chosen count with 0.
-- The Gini is that of these full loads, not of lists cut at top-k, which have 1 - k / E where all
-- domains list the same k equal experts.
-- The null draws each token's k experts evenly and on its own. Of it, two values are known:
-- never_chosen_closed_form = (1 - k / E)^n is its mean over n tokens, and
-- load_cv_closed_form = sqrt((E - k) / (k n)) its root mean square. The columns over E hold for
-- models of different sizes; their chance is that of the same column without it, over E.
--
-- asks    Is the load of each layer spread evenly over its experts?
-- source  MaxVio: arXiv 2408.15664 Eq. 4; the effective numbers are Hill numbers of order 1 and 2
--         (Hill 1973, Diversity and evenness)
-- reads   expert_usage, experts, model
-- binds   none
-- yields  layer_id, num_tokens [tokens], min_load [share of the layer's choices],
--         max_load [share of the layer's choices],
--         max_violation [(largest load - mean) / mean],
--         load_cv [standard deviation / mean], load_cv_closed_form [root mean square by chance],
--         load_entropy [nats], effective_experts [experts, exp of the entropy],
--         effective_share [effective_experts over E],
--         inverse_concentration [experts, 1 / sum of squared loads],
--         inverse_concentration_share [inverse_concentration over E],
--         load_gini [0 = equal full loads],
--         never_chosen [share of the experts], never_chosen_closed_form [mean by chance]
-- key     layer_id
-- values  min_load, max_load, max_violation, load_cv, load_entropy, effective_experts,
--         inverse_concentration, load_gini, never_chosen
-- jumps   never_chosen
-- null    uniform
-- order   layer_id
with used as (
    select layer_id, expert_id, sum(num_choices) as num_choices
    from expert_usage
    group by layer_id, expert_id
),
totals as (
    select layer_id, cast(sum(num_choices) as double) as total
    from used
    group by layer_id
),
loads as (
    select
        experts.layer_id,
        experts.expert_id,
        totals.total,
        coalesce(used.num_choices, 0) / totals.total as load
    from experts
    join totals on experts.layer_id = totals.layer_id
    left join used on experts.layer_id = used.layer_id and experts.expert_id = used.expert_id
),
placed as (
    select
        layer_id,
        total,
        load,
        row_number() over (partition by layer_id order by load, expert_id) as place
    from loads
),
summed as (
    select
        placed.layer_id,
        max(placed.total) / max(model.top_k) as num_tokens,
        cast(max(model.num_experts) as double) as num_experts,
        cast(max(model.top_k) as double) as top_k,
        min(placed.load) as min_load,
        max(placed.load) as max_load,
        stddev_pop(placed.load) as spread,
        sum(case when placed.load > 0 then -placed.load * ln(placed.load) else 0 end) as entropy,
        sum(placed.load * placed.load) as concentration,
        sum((2 * placed.place - model.num_experts - 1) * placed.load) as apart,
        sum(case when placed.load = 0 then 1 else 0 end) as num_never
    from placed
    cross join model
    group by placed.layer_id
)
select
    layer_id,
    cast(num_tokens as bigint) as num_tokens,
    min_load,
    max_load,
    max_load * num_experts - 1 as max_violation,
    spread * num_experts as load_cv,
    sqrt((num_experts - top_k) / (top_k * num_tokens)) as load_cv_closed_form,
    entropy as load_entropy,
    exp(entropy) as effective_experts,
    exp(entropy) / num_experts as effective_share,
    1 / concentration as inverse_concentration,
    1 / (concentration * num_experts) as inverse_concentration_share,
    apart / num_experts as load_gini,
    num_never / num_experts as never_chosen,
    power(1 - top_k / num_experts, num_tokens) as never_chosen_closed_form
from summed
order by layer_id
