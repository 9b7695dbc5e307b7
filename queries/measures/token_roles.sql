-- token_roles: which tokens go to which expert whatever the domain.
--
-- A token id has a role for an expert where, in at least $least_domains domains, it occurs at least
-- $least_count times and at least $least_rate of its occurrences there choose the expert. The paper
-- does not say how often "repeatedly" is; these bounds are this tool's. It looks at prompt tokens
-- (--tokens prompt). An expert that most tokens choose anyway has a high rate for all ids, so look
-- at lift, which is over the expert's share of all tokens. Tokens without known ids (-1) are left
-- out.
--
-- asks    Which token ids choose the same expert in several domains?
-- source  COMMITTEEAUDIT (arXiv 2601.03425) Figure 7
-- reads   routed_tokens, scoped_tokens, ranks, model
-- binds   $least_rate = 0.8: least share of an id's occurrences in a domain, 0 to 1.
--         $least_count = 10: fewest occurrences of an id in a domain.
--         $least_domains = 3: fewest domains.
-- yields  layer_id, expert_id, token_id, num_domains [domains that qualify],
--         num_tokens [occurrences in all domains], rate [share of them that chose the expert],
--         base_rate [share of all tokens that chose the expert], lift [rate over base rate],
--         even_share [k / E, the base rate of even experts]
-- key     layer_id, expert_id, token_id
-- values  none
-- null    none: a list of tokens that pass bounds; vocabulary_specialisation has a chance level.
-- order   layer_id, expert_id, num_domains descending, rate descending, token_id
with counted as (
    select
        routed_tokens.layer_id,
        routed_tokens.domain,
        scoped_tokens.token_id,
        routed_tokens.expert_ids[ranks.rank] as expert_id,
        count(*) as num_choices
    from routed_tokens
    join scoped_tokens
        on routed_tokens.request_id = scoped_tokens.request_id
        and routed_tokens.position = scoped_tokens.position
    cross join ranks
    where scoped_tokens.token_id >= 0
    group by
        routed_tokens.layer_id,
        routed_tokens.domain,
        scoped_tokens.token_id,
        routed_tokens.expert_ids[ranks.rank]
),
occurrences as (
    -- Each occurrence has k choices, of k experts.
    select
        counted.layer_id,
        counted.domain,
        counted.token_id,
        sum(counted.num_choices) / cast(max(model.top_k) as double) as num_tokens
    from counted
    cross join model
    group by counted.layer_id, counted.domain, counted.token_id
),
everywhere as (
    select layer_id, token_id, sum(num_tokens) as num_tokens
    from occurrences
    group by layer_id, token_id
),
layers as (
    select layer_id, sum(num_tokens) as num_tokens
    from everywhere
    group by layer_id
),
used as (
    select layer_id, expert_id, sum(num_choices) as num_choices
    from counted
    group by layer_id, expert_id
),
roles as (
    select
        counted.layer_id,
        counted.expert_id,
        counted.token_id,
        sum(
            case
                when occurrences.num_tokens >= $least_count
                    and counted.num_choices >= $least_rate * occurrences.num_tokens
                    then 1
                else 0
            end
        ) as num_domains,
        sum(counted.num_choices) as num_choices
    from counted
    join occurrences
        on counted.layer_id = occurrences.layer_id
        and counted.domain = occurrences.domain
        and counted.token_id = occurrences.token_id
    group by counted.layer_id, counted.expert_id, counted.token_id
),
rates as (
    select
        roles.layer_id,
        roles.expert_id,
        roles.token_id,
        cast(roles.num_domains as bigint) as num_domains,
        cast(everywhere.num_tokens as bigint) as num_tokens,
        roles.num_choices / everywhere.num_tokens as rate,
        used.num_choices / layers.num_tokens as base_rate
    from roles
    join everywhere
        on roles.layer_id = everywhere.layer_id and roles.token_id = everywhere.token_id
    join used on roles.layer_id = used.layer_id and roles.expert_id = used.expert_id
    join layers on roles.layer_id = layers.layer_id
    where roles.num_domains >= $least_domains
)
select
    rates.layer_id,
    rates.expert_id,
    rates.token_id,
    rates.num_domains,
    rates.num_tokens,
    rates.rate,
    rates.base_rate,
    rates.rate / rates.base_rate as lift,
    model.top_k / cast(model.num_experts as double) as even_share
from rates
cross join model
order by rates.layer_id, rates.expert_id, rates.num_domains desc, rates.rate desc, rates.token_id
