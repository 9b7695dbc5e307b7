-- same_token_domain_difference: how far two domains' use of experts differs for the same tokens.
--
-- The difference is the total variation between the two domains' shares of choices by expert: half
-- the sum of absolute differences, 0 for equal, 1 for disjoint use. The raw one takes each domain's
-- tokens as they are. For the same-token one both domains' tokens are weighted to one distribution
-- of token ids: the lesser of the id's shares in both domains, over their sum, which is common. Ids
-- of only one of the domains do not count in it, nor ids that are not known (-1) in either.
--
-- How to read it: raw above chance says that domains use other experts; same-token beside it, how
-- much of that is left for equal tokens. It has no chance level here: exchanged domains would have
-- one vocabulary, more tokens in common and so less noise than the recorded ones. Whether what is
-- left is more than chance, `tracer audit --same-token` tests, with the tokens' weights held. Where
-- common is small, same-token is about few tokens.
--
-- asks    Do domains use other experts, or only other tokens?
-- source  this tool's, after the same-token comparison of arXiv 2604.17182
-- reads   routed_tokens, scoped_tokens, ranks, experts
-- binds   none
-- yields  layer_id, domain, second_domain, common [share of both domains' tokens, 0 to 1],
--         raw [total variation, 0 to 1], same_token [total variation, 0 to 1]
-- key     layer_id, domain, second_domain
-- values  raw
-- null    labels
-- order   layer_id, domain, second_domain
with counted as (
    select
        routed_tokens.layer_id,
        routed_tokens.domain,
        scoped_tokens.token_id,
        routed_tokens.expert_ids[ranks.rank] as expert_id,
        cast(count(*) as double) as num_choices
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
by_id as (
    select layer_id, domain, token_id, sum(num_choices) as num_choices
    from counted
    group by layer_id, domain, token_id
),
by_domain as (
    select layer_id, domain, sum(num_choices) as num_choices
    from by_id
    group by layer_id, domain
),
pairs as (
    select
        first.layer_id,
        first.domain,
        second.domain as second_domain,
        first.num_choices as first_choices,
        second.num_choices as second_choices
    from by_domain as first
    join by_domain as second
        on first.layer_id = second.layer_id and first.domain < second.domain
),
shared_ids as (
    select
        pairs.layer_id,
        pairs.domain,
        pairs.second_domain,
        first.token_id,
        first.num_choices as first_choices,
        second.num_choices as second_choices,
        least(
            first.num_choices / pairs.first_choices, second.num_choices / pairs.second_choices
        ) as weight
    from pairs
    join by_id as first on pairs.layer_id = first.layer_id and pairs.domain = first.domain
    join by_id as second
        on pairs.layer_id = second.layer_id
        and pairs.second_domain = second.domain
        and first.token_id = second.token_id
),
common as (
    select layer_id, domain, second_domain, sum(weight) as weight
    from shared_ids
    group by layer_id, domain, second_domain
),
same_parts as (
    -- What each domain adds to an expert's share, the second one with a minus.
    select
        shared_ids.layer_id,
        shared_ids.domain,
        shared_ids.second_domain,
        counted.expert_id,
        shared_ids.weight * counted.num_choices / shared_ids.first_choices as part
    from shared_ids
    join counted
        on shared_ids.layer_id = counted.layer_id
        and shared_ids.domain = counted.domain
        and shared_ids.token_id = counted.token_id
    union all
    select
        shared_ids.layer_id,
        shared_ids.domain,
        shared_ids.second_domain,
        counted.expert_id,
        -shared_ids.weight * counted.num_choices / shared_ids.second_choices as part
    from shared_ids
    join counted
        on shared_ids.layer_id = counted.layer_id
        and shared_ids.second_domain = counted.domain
        and shared_ids.token_id = counted.token_id
),
same_tokens as (
    select layer_id, domain, second_domain, sum(abs(part)) / 2 as difference
    from (
        select layer_id, domain, second_domain, expert_id, sum(part) as part
        from same_parts
        group by layer_id, domain, second_domain, expert_id
    ) as by_expert
    group by layer_id, domain, second_domain
),
used as (
    select counted.layer_id, counted.domain, counted.expert_id, sum(counted.num_choices) as n
    from counted
    group by counted.layer_id, counted.domain, counted.expert_id
),
raw as (
    select
        pairs.layer_id,
        pairs.domain,
        pairs.second_domain,
        sum(abs(
            coalesce(first.n, 0) / pairs.first_choices
            - coalesce(second.n, 0) / pairs.second_choices
        )) / 2 as difference
    from pairs
    join experts on pairs.layer_id = experts.layer_id
    left join used as first
        on pairs.layer_id = first.layer_id
        and pairs.domain = first.domain
        and experts.expert_id = first.expert_id
    left join used as second
        on pairs.layer_id = second.layer_id
        and pairs.second_domain = second.domain
        and experts.expert_id = second.expert_id
    group by pairs.layer_id, pairs.domain, pairs.second_domain
)
select
    raw.layer_id,
    raw.domain,
    raw.second_domain,
    coalesce(common.weight, 0) as common,
    raw.difference as raw,
    same_tokens.difference / common.weight as same_token
from raw
left join common
    on raw.layer_id = common.layer_id
    and raw.domain = common.domain
    and raw.second_domain = common.second_domain
left join same_tokens
    on raw.layer_id = same_tokens.layer_id
    and raw.domain = same_tokens.domain
    and raw.second_domain = same_tokens.second_domain
order by raw.layer_id, raw.domain, raw.second_domain
