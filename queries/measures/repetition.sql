-- repetition: how often a token's experts are those of the token before it.
--
-- Pairs are tokens at positions i and i + 1 of one request and phase, both with choices. The first
-- choice is repeated where rank 1 is the same expert; any choice is where the two tokens share an
-- expert of any rank. The closed forms are for experts that are chosen evenly and independently:
-- 1 / E, and 1 - C(E - k, k) / C(E, k). Uneven experts repeat themselves more often without any
-- order, so the null keeps the tokens of each request and changes their places.
--
-- The first choice is that with the largest gate weight; a source without gate weights has no order
-- of choices. A token of scope last-prompt has no neighbour.
--
-- asks    Do neighbouring tokens go to the same experts more often than tokens in any order?
-- source  Mixtral (arXiv 2401.04088) Table 5, there as "first choice" and "first or second choice"
-- reads   routed_tokens, ranks, experts, model
-- binds   none
-- yields  layer_id, phase, num_pairs [pairs of neighbouring tokens],
--         first_choice [share of pairs], any_choice [share of pairs], shared [mean share of k],
--         first_choice_closed_form [share of pairs], any_choice_closed_form [share of pairs],
--         shared_closed_form [mean share of k]
-- key     layer_id, phase
-- values  first_choice, any_choice, shared
-- null    order
-- order   layer_id, phase descending
with neighbours as (
    select
        request_id,
        layer_id,
        phase,
        position,
        expert_ids,
        lag(expert_ids) over (
            partition by request_id, layer_id, phase order by position
        ) as before_ids,
        lag(position) over (
            partition by request_id, layer_id, phase order by position
        ) as before_position
    from routed_tokens
),
pairs as (
    select request_id, layer_id, phase, position, expert_ids, before_ids
    from neighbours
    where before_position = position - 1
),
matches as (
    select pairs.request_id, pairs.layer_id, pairs.phase, pairs.position, count(*) as num_shared
    from pairs
    cross join ranks as one
    cross join ranks as two
    where pairs.expert_ids[one.rank] = pairs.before_ids[two.rank]
    group by pairs.request_id, pairs.layer_id, pairs.phase, pairs.position
),
shared as (
    select layer_id, phase, count(*) as num_any, sum(num_shared) as num_shared
    from matches
    group by layer_id, phase
),
totals as (
    select
        layer_id,
        phase,
        count(*) as num_pairs,
        sum(case when expert_ids[1] = before_ids[1] then 1 else 0 end) as num_first
    from pairs
    group by layer_id, phase
),
closed_forms as (
    -- C(E - k, k) / C(E, k) is the product of (E - k - r + 1) / (E - r + 1) over r = 1 to k.
    select
        1 / cast(max(model.num_experts) as double) as first_choice,
        max(model.top_k) / cast(max(model.num_experts) as double) as shared,
        case
            when max(model.num_experts) < 2 * max(model.top_k) then 1.0
            else 1 - exp(sum(ln(
                greatest(model.num_experts - model.top_k - ranks.rank + 1, 1)
                / cast(model.num_experts - ranks.rank + 1 as double)
            )))
        end as any_choice
    from model
    cross join ranks
)
select
    totals.layer_id,
    totals.phase,
    totals.num_pairs,
    totals.num_first / cast(totals.num_pairs as double) as first_choice,
    coalesce(shared.num_any, 0) / cast(totals.num_pairs as double) as any_choice,
    coalesce(shared.num_shared, 0) / (cast(totals.num_pairs as double) * model.top_k) as shared,
    closed_forms.first_choice as first_choice_closed_form,
    closed_forms.any_choice as any_choice_closed_form,
    closed_forms.shared as shared_closed_form
from totals
left join shared on totals.layer_id = shared.layer_id and totals.phase = shared.phase
cross join closed_forms
cross join model
order by totals.layer_id, totals.phase desc
