-- router_neighbours: whether experts with like router rows are chosen for the same tokens.
--
-- The neighbour of an expert is the other one of its layer whose row of the router matrix has the
-- largest cosine with its own (equal ones: the smaller id). Both are chosen for a token more often
-- than independent ones would be where the ratio is over 1. k experts of each token are different
-- ones, so even routing has a ratio under 1: E (k - 1) / (k (E - 1)), the closed form. The null
-- keeps each expert's load and exchanges choices between tokens; neighbours stay.
--
-- asks    Are experts with similar router rows redundant: chosen together?
-- source  GatePro (arXiv 2510.13079) for the nearest pairs by cosine; the ratio is ours
-- reads   cosine_entries, expert_pairs, expert_usage, experts, model
-- binds   none
-- yields  layer_id, expert_id, neighbour_id [expert of the same layer], cosine,
--         token_share [share of tokens], neighbour_share [share of tokens],
--         co_selection [share of tokens with both], independent [product of the two shares],
--         ratio [co_selection over independent], ratio_closed_form [of even routing]
-- key     layer_id, expert_id
-- values  co_selection, ratio
-- null    swaps
-- order   layer_id, expert_id
with ordered as (
    select
        layer_id,
        expert_id,
        other_expert_id,
        cosine,
        row_number() over (
            partition by layer_id, expert_id order by cosine desc, other_expert_id
        ) as place
    from cosine_entries
    where cosine is not null
),
nearest as (
    select layer_id, expert_id, other_expert_id as neighbour_id, cosine
    from ordered
    where place = 1
),
used as (
    select layer_id, expert_id, cast(sum(num_choices) as double) as num_tokens
    from expert_usage
    group by layer_id, expert_id
),
totals as (
    select used.layer_id, sum(used.num_tokens) / max(model.top_k) as num_tokens
    from used
    cross join model
    group by used.layer_id
),
together as (
    select nearest.layer_id, nearest.expert_id, expert_pairs.num_tokens
    from nearest
    join expert_pairs
        on nearest.layer_id = expert_pairs.layer_id
        and least(nearest.expert_id, nearest.neighbour_id) = expert_pairs.expert_id
        and greatest(nearest.expert_id, nearest.neighbour_id) = expert_pairs.second_expert_id
),
shares as (
    select
        experts.layer_id,
        experts.expert_id,
        nearest.neighbour_id,
        nearest.cosine,
        coalesce(mine.num_tokens, 0) / totals.num_tokens as token_share,
        coalesce(theirs.num_tokens, 0) / totals.num_tokens as neighbour_share,
        coalesce(together.num_tokens, 0) / totals.num_tokens as co_selection
    from experts
    join nearest on experts.layer_id = nearest.layer_id and experts.expert_id = nearest.expert_id
    left join totals on experts.layer_id = totals.layer_id
    left join used as mine
        on experts.layer_id = mine.layer_id and experts.expert_id = mine.expert_id
    left join used as theirs
        on experts.layer_id = theirs.layer_id and nearest.neighbour_id = theirs.expert_id
    left join together
        on experts.layer_id = together.layer_id and experts.expert_id = together.expert_id
)
select
    shares.layer_id,
    shares.expert_id,
    shares.neighbour_id,
    shares.cosine,
    shares.token_share,
    shares.neighbour_share,
    shares.co_selection,
    shares.token_share * shares.neighbour_share as independent,
    shares.co_selection / nullif(shares.token_share * shares.neighbour_share, 0) as ratio,
    model.num_experts * (model.top_k - 1)
        / (cast(model.top_k as double) * nullif(model.num_experts - 1, 0)) as ratio_closed_form
from shares
cross join model
order by shares.layer_id, shares.expert_id
