-- usage_drift: how far the loads of a layer's experts move from one run to another.
--
-- The other run is a checkpoint or variant of the same model, best on the same requests:
-- `num_shared` says how many both have. Load is an expert's share of the layer's choices. Total
-- variation is half the sum of the absolute changes, the share of choices that moved; the
-- Jensen-Shannon divergence lies between 0 and ln 2. The two estimates are above 0 for runs that
-- do not differ, by as much as the null shows: requests exchange their runs.
--
-- asks    How far did the use of experts drift from one checkpoint to another?
-- source  SAME (arXiv 2602.01990): usage of the first task's inputs under later checkpoints, and
--         the entropy of routing; the distances are our choice
-- parts   loads_of_runs
-- reads   expert_usage, other_expert_usage, experts, scoped_requests, other_scoped_requests
-- binds   none
-- yields  layer_id, num_requests [requests], other_num_requests [requests],
--         num_shared [requests of both runs], total_variation [share of choices],
--         divergence [Jensen-Shannon, nats], entropy [of loads, nats],
--         other_entropy [of loads, nats], entropy_change [other - this, nats]
-- key     layer_id
-- values  total_variation, divergence, entropy_change
-- null    runs
-- order   layer_id
with loads as (
    select
        experts.layer_id,
        coalesce(used.num_choices, 0) / totals.total as p,
        coalesce(other_used.num_choices, 0) / other_totals.total as q
    from experts
    left join totals on experts.layer_id = totals.layer_id
    left join other_totals on experts.layer_id = other_totals.layer_id
    left join used on experts.layer_id = used.layer_id and experts.expert_id = used.expert_id
    left join other_used
        on experts.layer_id = other_used.layer_id and experts.expert_id = other_used.expert_id
),
terms as (
    select
        layer_id,
        abs(p - q) / 2 as moved,
        case when p > 0 then -p * ln(p) when p = 0 then 0 end as h,
        case when q > 0 then -q * ln(q) when q = 0 then 0 end as other_h,
        case when p + q > 0 then -(p + q) / 2 * ln((p + q) / 2) when p + q = 0 then 0 end as mixed_h
    from loads
),
distances as (
    select
        layer_id,
        sum(moved) as total_variation,
        sum(mixed_h - h / 2 - other_h / 2) as divergence,
        sum(h) as entropy,
        sum(other_h) as other_entropy
    from terms
    group by layer_id
),
requests as (
    select
        count(*) as num_requests,
        (select count(*) from other_scoped_requests) as other_num_requests,
        (
            select count(*)
            from scoped_requests as one
            join other_scoped_requests as two on one.request_id = two.request_id
        ) as num_shared
    from scoped_requests
)
select
    distances.layer_id,
    requests.num_requests,
    requests.other_num_requests,
    requests.num_shared,
    distances.total_variation,
    greatest(distances.divergence, 0) as divergence,
    distances.entropy,
    distances.other_entropy,
    distances.other_entropy - distances.entropy as entropy_change
from distances
cross join requests
order by distances.layer_id
