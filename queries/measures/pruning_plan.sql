-- pruning_plan: which experts of each layer to keep, and what share of the routing they hold.
--
-- A domain's score of an expert is its share of the layer's gate mass, or of its choices, in the
-- domain; scores of a layer sum to 1 in each domain and are averaged over domains, which weigh
-- alike however long they are. The $keep largest are kept (equal ones: the smaller id). Kept share
-- is the sum of their scores: how much of what was routed went to them. It is no promise: without
-- the others the routers choose anew, and answers are not looked at. keep / E is an equal share,
-- not chance. The norms of expert outputs that the source multiplies with are not recorded.
--
-- asks    Which experts could be pruned, and how much routing do the others hold?
-- source  EASY-EP (arXiv 2504.06792), without its norms of outputs and its change of the residual
-- reads   expert_usage, experts, model
-- binds   $keep = 0: experts to keep in each layer; 0 keeps half of them, rounded up.
--         $by = "mass" or "frequency": what is shared, mass (gate weights) or frequency (choices).
-- yields  layer_id, expert_id, score_rank [1 = largest], score [share of the layer's routing],
--         kept [1 = keep, 0 = prune], kept_share [share of the layer's routing],
--         kept_share_even [keep / E]
-- key     layer_id, expert_id
-- values  score, kept_share
-- null    none: a plan; its reference is an equal share, its stability is pruning_stability
-- order   layer_id, score_rank
with used as (
    select
        layer_id,
        domain,
        expert_id,
        sum(case when $by = 'frequency' then cast(num_choices as double) else weight_sum end)
            as amount
    from expert_usage
    group by layer_id, domain, expert_id
),
shares as (
    select
        layer_id,
        domain,
        expert_id,
        amount / nullif(sum(amount) over (partition by layer_id, domain), 0) as share
    from used
),
domains as (
    select layer_id, count(*) as number
    from (select distinct layer_id, domain from used) as named
    group by layer_id
),
scores as (
    select layer_id, expert_id, sum(share) as score
    from shares
    group by layer_id, expert_id
),
ranked as (
    select
        experts.layer_id,
        experts.expert_id,
        coalesce(scores.score, 0) / domains.number as score,
        row_number() over (
            partition by experts.layer_id
            order by round(coalesce(scores.score, 0), 12) desc, experts.expert_id
        ) as score_rank
    from experts
    join domains on experts.layer_id = domains.layer_id
    left join scores
        on experts.layer_id = scores.layer_id and experts.expert_id = scores.expert_id
),
sizes as (
    select
        num_experts,
        case
            when $keep <= 0 then ceil(num_experts / cast(2 as double))
            when $keep > num_experts then num_experts
            else $keep
        end as keep
    from model
),
plan as (
    select
        ranked.layer_id,
        ranked.expert_id,
        ranked.score_rank,
        ranked.score,
        case when ranked.score_rank <= sizes.keep then 1 else 0 end as kept,
        sizes.keep / cast(sizes.num_experts as double) as kept_share_even
    from ranked
    cross join sizes
)
select
    layer_id,
    expert_id,
    score_rank,
    score,
    kept,
    sum(case when kept = 1 then score else 0 end) over (partition by layer_id) as kept_share,
    kept_share_even
from plan
order by layer_id, score_rank
