-- prompt_predicts_generation: whether requests with alike prompts are alike in what follows.
--
-- Every two requests have two cosines of their choices of experts: of their prompts, and of what
-- was generated. Their rank correlation over all pairs is the measure; ties share their mean rank,
-- and cosines that agree to 12 digits are tied. Pairs are not independent: the null exchanges the
-- generated parts among requests (a Mantel test), which gives 0 on average. Domains that differ
-- in both phases are part of it. Requests that lack a phase are left out; copies of one request are
-- no pair. All pairs are made: layers x requests^2 / 2 rows, in each draw again, so take some of
-- many requests. Always of both phases, whatever the scope, of the requests that have tokens in it.
--
-- asks    Does the routing of a prompt say how what follows is routed?
-- source  arXiv 2604.09780 Eq. 13-14 for the similarity; Mantel (1967), The detection of disease
--         clustering, for the test
-- reads   phase_usage
-- binds   none
-- yields  layer_id, num_requests [requests with both phases], num_pairs [pairs of requests],
--         correlation [Spearman, over pairs]
-- key     layer_id
-- values  correlation
-- null    phases
-- order   layer_id
with norms as (
    select
        layer_id,
        request_id,
        origin,
        phase,
        sqrt(sum(cast(num_choices as double) * num_choices)) as norm
    from phase_usage
    group by layer_id, request_id, origin, phase
),
numbered as (
    select
        before.layer_id,
        before.request_id,
        before.norm as prompt_norm,
        later.norm as generated_norm,
        dense_rank() over (order by before.request_id) as number,
        dense_rank() over (order by before.origin) as origin_number
    from norms as before
    join norms as later
        on before.layer_id = later.layer_id and before.request_id = later.request_id
    where before.phase = 'prompt' and later.phase = 'generated'
),
units as (
    select
        phase_usage.layer_id,
        phase_usage.expert_id,
        phase_usage.phase,
        numbered.number,
        case
            when phase_usage.phase = 'prompt' then phase_usage.num_choices / numbered.prompt_norm
            else phase_usage.num_choices / numbered.generated_norm
        end as length
    from phase_usage
    join numbered
        on phase_usage.layer_id = numbered.layer_id
        and phase_usage.request_id = numbered.request_id
),
cosines as (
    select
        one.layer_id,
        one.phase,
        one.number,
        two.number as other_number,
        sum(one.length * two.length) as cosine
    from units as one
    join units as two
        on one.layer_id = two.layer_id
        and one.expert_id = two.expert_id
        and one.phase = two.phase
        and one.number < two.number
    group by one.layer_id, one.phase, one.number, two.number
),
pairs as (
    select
        one.layer_id,
        round(coalesce(before.cosine, 0), 12) as prompt_cosine,
        round(coalesce(later.cosine, 0), 12) as generated_cosine
    from numbered as one
    join numbered as two
        on one.layer_id = two.layer_id
        and one.number < two.number
        and one.origin_number <> two.origin_number
    left join cosines as before
        on before.phase = 'prompt'
        and one.layer_id = before.layer_id
        and one.number = before.number
        and two.number = before.other_number
    left join cosines as later
        on later.phase = 'generated'
        and one.layer_id = later.layer_id
        and one.number = later.number
        and two.number = later.other_number
),
ranked as (
    select
        layer_id,
        rank() over (partition by layer_id order by prompt_cosine)
            + (count(*) over (partition by layer_id, prompt_cosine) - 1) / cast(2 as double)
            as prompt_rank,
        rank() over (partition by layer_id order by generated_cosine)
            + (count(*) over (partition by layer_id, generated_cosine) - 1) / cast(2 as double)
            as generated_rank
    from pairs
),
correlated as (
    select
        layer_id,
        count(*) as num_pairs,
        covar_pop(prompt_rank, generated_rank)
            / nullif(stddev_pop(prompt_rank) * stddev_pop(generated_rank), 0) as correlation
    from ranked
    group by layer_id
),
sizes as (
    select layer_id, count(*) as num_requests
    from numbered
    group by layer_id
)
select
    sizes.layer_id,
    sizes.num_requests,
    coalesce(correlated.num_pairs, 0) as num_pairs,
    correlated.correlation
from sizes
left join correlated on sizes.layer_id = correlated.layer_id
order by sizes.layer_id
