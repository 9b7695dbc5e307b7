-- prefix_similarity: how alike requests use experts, by how much of them has been read.
--
-- A request's usage after n tokens of its prompt, or of what it generated, is how often each expert
-- was chosen by then. The similarity of two requests is the cosine of their usages after equally
-- many tokens: 1 for the same proportions, 0 where no expert is shared. Its mean over all pairs of
-- a domain, and of two domains, follows from sums of usages of length 1, so no pairs are made. Only
-- requests with at least so many tokens count, so longer prefixes are of fewer requests.
--
-- Usage of few tokens is uneven by chance, so similarity rises with n where nothing differs: look
-- at domains apart from each other, and at the chance level. Prefixes end at multiples of $step up
-- to $longest.
--
-- asks    When do requests of different domains begin to use other experts?
-- source  "The Myth of Expert Specialization" (arXiv 2604.09780) Eq. 14 and Figures 7 and 9;
--         generated tokens count from the first generated one here, not from the prompt's start
-- reads   routed_tokens, scoped_requests, ranks
-- binds   $step = 32: tokens from one prefix to the next.
--         $longest = 256: tokens of the longest prefix.
-- yields  layer_id, phase, prefix_tokens [tokens], num_requests [requests that are so long],
--         within_domain [mean cosine, 0 to 1], across_domains [mean cosine, 0 to 1],
--         difference [within_domain less across_domains]
-- key     layer_id, phase, prefix_tokens
-- values  within_domain, across_domains, difference
-- null    labels
-- order   layer_id, phase descending, prefix_tokens
with spans as (
    select
        request_id,
        layer_id,
        phase,
        min(position) as first_position,
        least(
            floor((max(position) - min(position) + 1) / cast($step as double)),
            floor($longest / cast($step as double))
        ) as num_blocks
    from routed_tokens
    group by request_id, layer_id, phase
),
blocks as (
    -- Choices of each stretch of $step tokens, counted from 1.
    select
        routed_tokens.request_id,
        routed_tokens.layer_id,
        routed_tokens.phase,
        floor(
            (routed_tokens.position - spans.first_position) / cast($step as double)
        ) + 1 as block,
        routed_tokens.expert_ids[ranks.rank] as expert_id,
        cast(count(*) as double) as num_choices
    from routed_tokens
    join spans
        on routed_tokens.request_id = spans.request_id
        and routed_tokens.layer_id = spans.layer_id
        and routed_tokens.phase = spans.phase
    cross join ranks
    where routed_tokens.position - spans.first_position < spans.num_blocks * $step
    group by
        routed_tokens.request_id,
        routed_tokens.layer_id,
        routed_tokens.phase,
        floor((routed_tokens.position - spans.first_position) / cast($step as double)) + 1,
        routed_tokens.expert_ids[ranks.rank]
),
ends as (
    select request_id, layer_id, phase, block
    from blocks
    group by request_id, layer_id, phase, block
),
usages as (
    select
        blocks.request_id,
        blocks.layer_id,
        blocks.phase,
        ends.block,
        blocks.expert_id,
        sum(blocks.num_choices) as num_choices
    from ends
    join blocks
        on ends.request_id = blocks.request_id
        and ends.layer_id = blocks.layer_id
        and ends.phase = blocks.phase
        and blocks.block <= ends.block
    group by
        blocks.request_id,
        blocks.layer_id,
        blocks.phase,
        ends.block,
        blocks.expert_id
),
lengths as (
    select
        by_request.request_id,
        scoped_requests.origin,
        scoped_requests.domain,
        by_request.layer_id,
        by_request.phase,
        by_request.block,
        by_request.length
    from (
        select
            request_id,
            layer_id,
            phase,
            block,
            sqrt(sum(num_choices * num_choices)) as length
        from usages
        group by request_id, layer_id, phase, block
    ) as by_request
    join scoped_requests on by_request.request_id = scoped_requests.request_id
),
sums as (
    select
        usages.layer_id,
        usages.phase,
        usages.block,
        lengths.domain,
        usages.expert_id,
        sum(usages.num_choices / lengths.length) as total
    from usages
    join lengths
        on usages.request_id = lengths.request_id
        and usages.layer_id = lengths.layer_id
        and usages.phase = lengths.phase
        and usages.block = lengths.block
    group by usages.layer_id, usages.phase, usages.block, lengths.domain, usages.expert_id
),
products as (
    -- Of all requests, and of those of one domain, with themselves.
    select layer_id, phase, block, sum(total * total) as everywhere, sum(squares) as by_domain
    from (
        select
            layer_id,
            phase,
            block,
            expert_id,
            sum(total) as total,
            sum(total * total) as squares
        from sums
        group by layer_id, phase, block, expert_id
    ) as by_expert
    group by layer_id, phase, block
),
counts as (
    -- A request's product with itself, or with a copy, is 1: as many as squares of copies.
    select
        layer_id,
        phase,
        block,
        sum(n) as num_requests,
        cast(sum(n) * sum(n) as double) as everywhere,
        cast(sum(n * n) as double) as by_domain,
        cast(sum(copies) as double) as copies
    from (
        select layer_id, phase, block, domain, sum(n) as n, sum(n * n) as copies
        from (
            select layer_id, phase, block, domain, origin, count(*) as n
            from lengths
            group by layer_id, phase, block, domain, origin
        ) as by_origin
        group by layer_id, phase, block, domain
    ) as by_domain
    group by layer_id, phase, block
),
means as (
    select
        counts.layer_id,
        counts.phase,
        counts.block,
        counts.num_requests,
        (products.by_domain - counts.copies) / nullif(counts.by_domain - counts.copies, 0)
            as within_domain,
        (products.everywhere - products.by_domain) / nullif(counts.everywhere - counts.by_domain, 0)
            as across_domains
    from counts
    join products
        on counts.layer_id = products.layer_id
        and counts.phase = products.phase
        and counts.block = products.block
)
select
    layer_id,
    phase,
    cast(block * $step as integer) as prefix_tokens,
    cast(num_requests as bigint) as num_requests,
    within_domain,
    across_domains,
    within_domain - across_domains as difference
from means
order by layer_id, phase desc, prefix_tokens
