-- context_contrast: how many tokens choose each expert in one run and in another, and the lift.
--
-- Made for a model and the same model with its routers tuned on a task that needs the context
-- (the other run): experts that the tuned routers choose most are those that serve it. Counts are
-- of all tokens of a request, long requests weigh more; where the runs' requests or texts differ,
-- so may the counts. Rank 1 has the largest share, equal ones by expert id. Lift has no value
-- where this run never chooses the expert. The null exchanges the runs of whole requests.
--
-- asks    Which experts does a tuned router choose more than the router before?
-- source  Router Lens (arXiv 2508.19594): A[l, e], the number of tokens whose top-k holds e;
--         difference and lift of two runs are our addition
-- reads   expert_usage, other_expert_usage, experts, model
-- binds   none
-- yields  layer_id, expert_id, num_tokens [tokens that choose it],
--         other_num_tokens [tokens that choose it], token_share [share of the run's tokens],
--         other_token_share [share of the run's tokens], difference [other - this],
--         lift [other share over this share], share_rank [1 = chosen most],
--         other_share_rank [1 = chosen most]
-- key     layer_id, expert_id
-- values  difference, lift
-- null    runs
-- order   layer_id, expert_id
with used as (
    select layer_id, expert_id, sum(num_choices) as num_choices
    from expert_usage
    group by layer_id, expert_id
),
other_used as (
    select layer_id, expert_id, sum(num_choices) as num_choices
    from other_expert_usage
    group by layer_id, expert_id
),
totals as (
    select used.layer_id, sum(used.num_choices) / cast(max(model.top_k) as double) as num_tokens
    from used
    cross join model
    group by used.layer_id
),
other_totals as (
    select
        other_used.layer_id,
        sum(other_used.num_choices) / cast(max(model.top_k) as double) as num_tokens
    from other_used
    cross join model
    group by other_used.layer_id
),
shares as (
    select
        experts.layer_id,
        experts.expert_id,
        coalesce(used.num_choices, 0) as num_tokens,
        coalesce(other_used.num_choices, 0) as other_num_tokens,
        coalesce(used.num_choices, 0) / totals.num_tokens as token_share,
        coalesce(other_used.num_choices, 0) / other_totals.num_tokens as other_token_share
    from experts
    left join totals on experts.layer_id = totals.layer_id
    left join other_totals on experts.layer_id = other_totals.layer_id
    left join used on experts.layer_id = used.layer_id and experts.expert_id = used.expert_id
    left join other_used
        on experts.layer_id = other_used.layer_id and experts.expert_id = other_used.expert_id
)
select
    layer_id,
    expert_id,
    cast(num_tokens as bigint) as num_tokens,
    cast(other_num_tokens as bigint) as other_num_tokens,
    token_share,
    other_token_share,
    other_token_share - token_share as difference,
    other_token_share / nullif(token_share, 0) as lift,
    row_number() over (partition by layer_id order by num_tokens desc, expert_id) as share_rank,
    row_number() over (partition by layer_id order by other_num_tokens desc, expert_id)
        as other_share_rank
from shares
order by layer_id, expert_id
