-- same_token_overlap: how much of their experts two tokens share, of equal and of different ids.
--
-- Overlap of two tokens is the number of experts that both chose over k. Pairs are of tokens in
-- different requests, so that neither a token's surroundings nor its place are compared with
-- themselves; all such pairs count once. Where tokens of equal ids overlap no more than others, the
-- id decides nothing; where they overlap fully, the context decides nothing. Even, independent
-- choices overlap by k / E. Tokens whose ids are not known (-1) are left out.
--
-- Sums over pairs are made from counts: the overlaps of all pairs of a group add up to the sum over
-- experts of the square of its count. A frequent id has many pairs, which is why there is also the
-- plain mean over ids. The mean Jaccard index of pairs does not follow from counts, so it is taken
-- of the pairs among about $jaccard_tokens tokens, spread evenly over the scope (all tokens, where
-- there are no more): it is the coarser number. Its closed form is for even, independent choices.
--
-- asks    Does a token's id decide its experts, whatever its context?
-- source  "The Myth of Expert Specialization" (arXiv 2604.09780) Figure 4, overlap by its Eq. 11;
--         arXiv 2604.17182 compares equal with different ids by Jaccard
-- reads   routed_tokens, scoped_tokens, ranks, experts, model
-- binds   $jaccard_tokens = 500: tokens whose pairs the Jaccard index is taken of; 0 leaves it out.
-- yields  layer_id, num_same_id [pairs of tokens], num_different_id [pairs of tokens],
--         num_token_ids [ids with a pair], same_id [mean share of k],
--         same_id_by_ids [the same, each id's mean counting once],
--         different_id [mean share of k], difference [same_id less different_id],
--         closed_form [k / E], num_compared [tokens that the Jaccard index is taken of],
--         same_id_jaccard [mean Jaccard index],
--         different_id_jaccard [the same, of different ids],
--         jaccard_closed_form [of two even, independent choices]
-- key     layer_id
-- values  same_id, same_id_by_ids, different_id, difference, same_id_jaccard, different_id_jaccard
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
-- Every so many-th token would be the same place of each prompt where prompts are equally long, so
-- they are taken by the fractional parts of multiples of the golden ratio, which spread evenly.
numbered as (
    select
        request_id,
        origin,
        position,
        token_id,
        cast(row_number() over (order by request_id, position) as double) as place
    from scoped_tokens
    where token_id >= 0
),
sampled as (
    select
        numbered.request_id,
        numbered.origin,
        numbered.position,
        numbered.token_id,
        numbered.place
    from numbered
    cross join (select count(*) as num_tokens from numbered) as sizes
    where numbered.place * 0.6180339887498949 - floor(numbered.place * 0.6180339887498949)
        < $jaccard_tokens / cast(sizes.num_tokens as double)
),
some_chosen as (
    select
        routed_tokens.layer_id,
        sampled.place,
        sampled.origin,
        sampled.token_id,
        routed_tokens.expert_ids[ranks.rank] as expert_id
    from sampled
    join routed_tokens
        on sampled.request_id = routed_tokens.request_id
        and sampled.position = routed_tokens.position
    cross join ranks
),
shared as (
    select
        one.layer_id,
        one.place,
        another.place as another_place,
        max(case when one.token_id = another.token_id then 1 else 0 end) as same,
        cast(count(*) as double) as num_shared
    from some_chosen as one
    join some_chosen as another
        on one.layer_id = another.layer_id and one.expert_id = another.expert_id
    where one.place < another.place and one.origin <> another.origin
    group by one.layer_id, one.place, another.place
),
jaccards as (
    select
        shared.layer_id,
        sum(shared.same * shared.num_shared / (2 * model.top_k - shared.num_shared)) as same,
        sum((1 - shared.same) * shared.num_shared / (2 * model.top_k - shared.num_shared))
            as different
    from shared
    cross join model
    group by shared.layer_id
),
some_counts as (
    select
        some_chosen.layer_id,
        some_chosen.origin,
        some_chosen.token_id,
        count(*) / cast(max(model.top_k) as double) as n
    from some_chosen
    cross join model
    group by some_chosen.layer_id, some_chosen.origin, some_chosen.token_id
),
some_same as (
    select layer_id, sum(pairs) as pairs
    from (
        select layer_id, token_id, (sum(n) * sum(n) - sum(n * n)) / 2 as pairs
        from some_counts
        group by layer_id, token_id
    ) as of_ids
    group by layer_id
),
some_pairs as (
    select layer_id, sum(n) as num_tokens, (sum(n) * sum(n) - sum(n * n)) / 2 as pairs
    from (
        select layer_id, origin, sum(n) as n
        from some_counts
        group by layer_id, origin
    ) as of_requests
    group by layer_id
),
jaccard_means as (
    select
        some_pairs.layer_id,
        some_pairs.num_tokens,
        coalesce(jaccards.same, 0) / nullif(some_same.pairs, 0) as same,
        coalesce(jaccards.different, 0) / nullif(some_pairs.pairs - some_same.pairs, 0)
            as different
    from some_pairs
    join some_same on some_pairs.layer_id = some_same.layer_id
    left join jaccards on some_pairs.layer_id = jaccards.layer_id
),
numbers as (
    select distinct expert_id + 1 as number
    from experts
),
-- k! k! (E - k)! (E - k)! / (x! (k - x)! (k - x)! (E - 2k + x)! E!), as a sum of logarithms: the
-- logarithm of each number, as often as it is a factor above less below the line.
probabilities as (
    select
        possible.number as num_shared,
        model.top_k,
        exp(
            sum(
                ln(numbers.number) * (
                    2 * case when numbers.number <= model.top_k then 1 else 0 end
                    + 2 * case when numbers.number + model.top_k <= model.num_experts
                        then 1 else 0 end
                    - case when numbers.number <= possible.number then 1 else 0 end
                    - 2 * case when numbers.number + possible.number <= model.top_k
                        then 1 else 0 end
                    - case when numbers.number + 2 * model.top_k
                            <= model.num_experts + possible.number
                        then 1 else 0 end
                    - 1
                )
            )
        ) as probability
    from numbers as possible
    cross join numbers
    cross join model
    where possible.number <= model.top_k
        and possible.number >= 2 * model.top_k - model.num_experts
    group by possible.number, model.top_k
),
chances as (
    select
        sum(
            probabilities.probability * probabilities.num_shared
            / cast(2 * probabilities.top_k - probabilities.num_shared as double)
        ) as jaccard
    from probabilities
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
        model.top_k / cast(model.num_experts as double) as closed_form,
        coalesce(jaccard_means.num_tokens, 0) as num_compared,
        jaccard_means.same as same_id_jaccard,
        jaccard_means.different as different_id_jaccard,
        chances.jaccard as jaccard_closed_form
    from (select distinct layer_id from experts) as layers
    left join same on layers.layer_id = same.layer_id
    left join every_square on layers.layer_id = every_square.layer_id
    left join every_pair on layers.layer_id = every_pair.layer_id
    left join jaccard_means on layers.layer_id = jaccard_means.layer_id
    cross join chances
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
    closed_form,
    cast(num_compared as bigint) as num_compared,
    same_id_jaccard,
    different_id_jaccard,
    jaccard_closed_form
from means
order by layer_id
