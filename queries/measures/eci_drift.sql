-- eci_drift: how each expert's contribution changes from one run to another.
--
-- ECI is the mean gate weight over a domain's tokens, zeros included; here its mean over the
-- domains of each run, as `committee` has it, so that a large domain counts like a small one. The
-- other run is a checkpoint, variant or later run of the same model, best on the same requests and
-- domains. The null exchanges the runs of whole requests.
--
-- asks    Which experts gain or lose contribution from one run to another?
-- source  COMMITTEEAUDIT (arXiv 2601.03425 v2) Eq. 2, of two runs; the difference is our choice
-- parts   eci_of_runs
-- reads   expert_usage, other_expert_usage, experts, model, scoped_requests,
--         other_scoped_requests
-- binds   none
-- yields  layer_id, expert_id, eci [gate weight per token], other_eci [gate weight per token],
--         eci_change [other - this]
-- key     layer_id, expert_id
-- values  eci_change
-- null    runs
-- order   layer_id, expert_id
with sums as (
    select
        contributions.run,
        contributions.layer_id,
        contributions.expert_id,
        sum(contributions.eci) as eci_sum
    from contributions
    group by contributions.run, contributions.layer_id, contributions.expert_id
),
means as (
    select sums.run, sums.layer_id, sums.expert_id, sums.eci_sum / domains.num_domains as eci
    from sums
    join domains on sums.run = domains.run
)
select
    experts.layer_id,
    experts.expert_id,
    coalesce(one.eci, 0) as eci,
    coalesce(two.eci, 0) as other_eci,
    coalesce(two.eci, 0) - coalesce(one.eci, 0) as eci_change
from experts
left join means as one
    on experts.layer_id = one.layer_id and experts.expert_id = one.expert_id and one.run = 1
left join means as two
    on experts.layer_id = two.layer_id and experts.expert_id = two.expert_id and two.run = 2
order by experts.layer_id, experts.expert_id
