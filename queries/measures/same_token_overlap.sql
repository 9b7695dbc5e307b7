-- same_token_overlap: how much of their experts two tokens share, of equal and of different ids.
--
-- Overlap of two tokens is the number of experts that both chose over k. Pairs are of tokens in
-- different requests, so that neither a token's surroundings nor its place are compared with
-- themselves; all such pairs count once. Where tokens of equal ids overlap no more than others, the
-- id decides nothing; where they overlap fully, the context decides nothing. Even, independent
-- choices overlap by k / E. Tokens whose ids are not known (-1) are left out.
--
-- Sums over pairs are made from counts: the overlaps of all pairs of a group add up to the sum over
-- experts of the square of its count. The mean Jaccard of pairs does not follow from counts and is
-- not given. A frequent id has many pairs, which is why there is also the plain mean over ids.
--
-- asks    Does a token's id decide its experts, whatever its context?
-- source  "The Myth of Expert Specialization" (arXiv 2604.09780) Figure 4, overlap by its Eq. 11;
--         arXiv 2604.17182 compares equal with different ids by Jaccard
-- reads   routed_tokens, scoped_tokens, ranks, experts, model
-- binds   none
-- yields  layer_id, num_same_id [pairs of tokens], num_different_id [pairs of tokens],
--         num_token_ids [ids with a pair], same_id [mean share of k],
--         same_id_by_ids [the same, each id's mean counting once],
--         different_id [mean share of k], difference [same_id less different_id],
--         closed_form [k / E]
-- key     layer_id
-- values  same_id, same_id_by_ids, different_id, difference
-- null    token_ids
-- order   layer_id
with counted as (
    -- By origin: copies of a request that was drawn twice are no pair.
    select
        routed_tokens.layer_id,
        routed_tokens.origin,
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
        routed_tokens.origin,
        scoped_tokens.token_id,
        routed_tokens.expert_ids[ranks.rank]
),
id_squares as (
    -- Overlaps in experts of all pairs, each twice, and those of pairs of one request.
    select
        layer_id,
        token_id,
        sum(num_choices * num_choices) as square,
        sum(of_requests) as of_requests
    from (
        select
            layer_id,
            token_id,
            expert_id,
            sum(num_choices) as num_choices,
            sum(num_choices * num_choices) as of_requests
        from counted
        group by layer_id, token_id, expert_id
    ) as by_expert
    group by layer_id, token_id
),
id_pairs as (
    select layer_id, token_id, sum(n) * sum(n) - sum(n * n) as pairs
    from (
        select
            counted.layer_id,
            counted.token_id,
            counted.origin,
            sum(counted.num_choices) / max(model.top_k) as n
        from counted
        cross join model
        group by counted.layer_id, counted.token_id, counted.origin
    ) as by_request
    group by layer_id, token_id
),
same as (
    select
        id_squares.layer_id,
        count(*) as num_token_ids,
        sum(id_pairs.pairs) as pairs,
        sum(id_squares.square - id_squares.of_requests) as overlaps,
        avg((id_squares.square - id_squares.of_requests) / id_pairs.pairs) as by_ids
    from id_squares
    join id_pairs
        on id_squares.layer_id = id_pairs.layer_id and id_squares.token_id = id_pairs.token_id
    where id_pairs.pairs > 0
    group by id_squares.layer_id
),
request_experts as (
    select layer_id, origin, expert_id, sum(num_choices) as num_choices
    from counted
    group by layer_id, origin, expert_id
),
every_square as (
    select layer_id, sum(num_choices * num_choices - of_requests) as overlaps
    from (
        select
            layer_id,
            expert_id,
            sum(num_choices) as num_choices,
            sum(num_choices * num_choices) as of_requests
        from request_experts
        group by layer_id, expert_id
    ) as by_expert
    group by layer_id
),
every_pair as (
    select layer_id, sum(n) * sum(n) - sum(n * n) as pairs
    from (
        select
            request_experts.layer_id,
            request_experts.origin,
            sum(request_experts.num_choices) / max(model.top_k) as n
        from request_experts
        cross join model
        group by request_experts.layer_id, request_experts.origin
    ) as by_request
    group by layer_id
),
means as (
    select
        layers.layer_id,
        coalesce(same.pairs, 0) as same_pairs,
        coalesce(every_pair.pairs, 0) - coalesce(same.pairs, 0) as different_pairs,
        coalesce(same.num_token_ids, 0) as num_token_ids,
        same.overlaps / (same.pairs * model.top_k) as same_id,
        same.by_ids / model.top_k as same_id_by_ids,
        (every_square.overlaps - coalesce(same.overlaps, 0))
            / nullif((every_pair.pairs - coalesce(same.pairs, 0)) * model.top_k, 0)
            as different_id,
        model.top_k / cast(model.num_experts as double) as closed_form
    from (select distinct layer_id from experts) as layers
    left join same on layers.layer_id = same.layer_id
    left join every_square on layers.layer_id = every_square.layer_id
    left join every_pair on layers.layer_id = every_pair.layer_id
    cross join model
)
select
    layer_id,
    cast(same_pairs / 2 as bigint) as num_same_id,
    cast(different_pairs / 2 as bigint) as num_different_id,
    num_token_ids,
    same_id,
    same_id_by_ids,
    different_id,
    same_id - different_id as difference,
    closed_form
from means
order by layer_id
