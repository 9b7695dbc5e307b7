-- domain_specialisation: the share of a domain's tokens that choose an expert.
--
-- Each token chooses k experts, so the shares of a domain and layer sum to k. even_share, k / E, is
-- what all experts would have if all were used alike: a reference, not chance. Chance says what the
-- domain would have if its requests were any requests, which is near overall_share.
--
-- asks    Which experts does a domain's text choose more, or less, than other text?
-- source  OLMoE (arXiv 2409.02060) Eq. 7, for top-k
-- reads   expert_usage, experts, model
-- binds   none
-- yields  domain, layer_id, expert_id, num_choices [choices], num_tokens [tokens of the domain],
--         specialisation [share of the domain's tokens],
--         overall_share [share of all domains' tokens], even_share [k / E]
-- key     domain, layer_id, expert_id
-- values  specialisation
-- null    labels
-- order   domain, layer_id, expert_id
with used as (
    select domain, layer_id, expert_id, sum(num_choices) as num_choices
    from expert_usage
    group by domain, layer_id, expert_id
),
totals as (
    select used.domain, used.layer_id, sum(used.num_choices) / max(model.top_k) as num_tokens
    from used
    cross join model
    group by used.domain, used.layer_id
),
overall as (
    select layer_id, expert_id, sum(num_choices) as num_choices
    from used
    group by layer_id, expert_id
),
layers as (
    select layer_id, sum(num_tokens) as num_tokens
    from totals
    group by layer_id
)
select
    totals.domain,
    experts.layer_id,
    experts.expert_id,
    cast(coalesce(used.num_choices, 0) as bigint) as num_choices,
    cast(totals.num_tokens as bigint) as num_tokens,
    coalesce(used.num_choices, 0) / cast(totals.num_tokens as double) as specialisation,
    coalesce(overall.num_choices, 0) / cast(layers.num_tokens as double) as overall_share,
    model.top_k / cast(model.num_experts as double) as even_share
from experts
cross join model
join layers on experts.layer_id = layers.layer_id
join totals on experts.layer_id = totals.layer_id
left join overall
    on experts.layer_id = overall.layer_id and experts.expert_id = overall.expert_id
left join used
    on totals.domain = used.domain
    and experts.layer_id = used.layer_id
    and experts.expert_id = used.expert_id
order by totals.domain, experts.layer_id, experts.expert_id
