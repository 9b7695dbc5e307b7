-- vocabulary_specialisation: how far a token's id alone decides which expert it goes to.
--
-- For each input token id, the share of its occurrences that chose the expert it chose most; the
-- layer has the plain mean over ids, and the mean over their occurrences. Ids that occur less than
-- $least_count times are left out: the largest share of few occurrences is large by chance. Where
-- requests are drawn anew, copies of an occurrence are one, so that ids near the bound drop out of
-- the interval rather than count as often as their copies. The share is
-- larger than k / E by chance for all ids, so the null, which lets the tokens of a request
-- exchange ids, is the level to compare with: what a request or its domain chooses, whatever the
-- id, is in it. An expert that every token chooses makes all shares 1. A least count of 1 is what
-- OLMoE's layer plots have, 10 its lists of tokens. Tokens whose ids are not known (-1) do not
-- count.
--
-- asks    Do tokens of the same id go to the same expert?
-- source  OLMoE (arXiv 2409.02060) section 5, vocabulary specialisation for input ids
-- reads   routed_tokens, scoped_tokens, ranks, experts, model
-- binds   $least_count = 10: fewest occurrences of a token id in the scope.
-- yields  layer_id, num_token_ids [token ids], num_tokens [their occurrences],
--         specialisation [mean share of an id's occurrences],
--         specialisation_by_tokens [the same, ids weighted by occurrences],
--         even_share [k / E, each expert's share of occurrences where all are alike]
-- key     layer_id
-- values  specialisation, specialisation_by_tokens
-- null    token_ids
-- order   layer_id
with counted as (
    select
        routed_tokens.layer_id,
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
        routed_tokens.layer_id, scoped_tokens.token_id, routed_tokens.expert_ids[ranks.rank]
),
originals as (
    select layer_id, token_id, count(*) as num_originals
    from (
        select distinct
            routed_tokens.layer_id,
            scoped_tokens.token_id,
            routed_tokens.origin,
            routed_tokens.position
        from routed_tokens
        join scoped_tokens
            on routed_tokens.request_id = scoped_tokens.request_id
            and routed_tokens.position = scoped_tokens.position
        where scoped_tokens.token_id >= 0
    ) as occurrences
    group by layer_id, token_id
),
by_id as (
    -- Each occurrence has k choices, of k experts.
    select
        counted.layer_id,
        counted.token_id,
        cast(max(counted.num_choices) as double) as most,
        sum(counted.num_choices) / cast(max(model.top_k) as double) as num_tokens
    from counted
    cross join model
    group by counted.layer_id, counted.token_id
),
found as (
    select
        by_id.layer_id,
        count(*) as num_token_ids,
        sum(by_id.num_tokens) as num_tokens,
        avg(by_id.most / by_id.num_tokens) as specialisation,
        sum(by_id.most) / sum(by_id.num_tokens) as specialisation_by_tokens
    from by_id
    join originals
        on by_id.layer_id = originals.layer_id and by_id.token_id = originals.token_id
    where originals.num_originals >= $least_count
    group by by_id.layer_id
),
layers as (
    select distinct layer_id
    from experts
)
select
    layers.layer_id,
    coalesce(found.num_token_ids, 0) as num_token_ids,
    cast(coalesce(found.num_tokens, 0) as bigint) as num_tokens,
    found.specialisation,
    found.specialisation_by_tokens,
    model.top_k / cast(model.num_experts as double) as even_share
from layers
left join found on layers.layer_id = found.layer_id
cross join model
order by layers.layer_id
