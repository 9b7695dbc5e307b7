-- lorenz_curve: the share of a layer that its experts hold, from those with the least on.
--
-- Experts stand by what they hold, least first; the curve says what the first 0, 1, ... E of them
-- hold together. Of three vectors, which differ:
-- - loads: choices of all tokens together, so every expert counts with its full load
-- - contributions: mean over domains of the ECI of every chosen expert
-- - listed: the same, zero outside the first k of each domain (equal ones by id), as the published
-- curves and Gini indices were made
--
-- Equal is the curve if the experts that may hold something held the same: all of them, and in
-- listed k, the same in each domain. Twice the area between a curve and the straight line, by
-- trapezoids, is the Gini index, so of listed 1 - k / E is built in. A layer in which nothing is
-- held has no curve. The null draws each token's k experts evenly and on its own, so its curves
-- of loads are almost straight; depth_profile compares Gini indices with domains that agree by
-- chance.
--
-- asks    How unequally do the experts of a layer share its routing?
-- source  COMMITTEEAUDIT (arXiv 2601.03425 v2) section 4.2 and Appendix E, Eq. 14 for listed
-- parts   domain_eci, domain_lists
-- reads   expert_usage, experts, model
-- binds   $rank_cutoff = 0: how deep each domain's list goes; 0 takes the run's top-k.
-- yields  layer_id, vector [loads, contributions or listed],
--         num_least [experts, those with the least], share_of_experts [of E],
--         share [share of what the layer holds], share_equal [if the experts were equal]
-- key     layer_id, vector, num_least
-- values  share
-- null    uniform
-- order   layer_id, vector, num_least
with sums as (
    select
        ranked.layer_id,
        ranked.expert_id,
        cast(sum(ranked.num_choices) as double) as load,
        sum(ranked.eci) as contribution,
        sum(case when ranked.place <= rules.depth then ranked.eci else 0 end) as listed
    from ranked
    cross join rules
    group by ranked.layer_id, ranked.expert_id
),
every as (
    select
        experts.layer_id,
        experts.expert_id,
        coalesce(sums.load, 0) as load,
        coalesce(sums.contribution, 0) as contribution,
        coalesce(sums.listed, 0) as listed
    from experts
    left join sums
        on experts.layer_id = sums.layer_id and experts.expert_id = sums.expert_id
),
vectors as (
    select layer_id, expert_id, 'loads' as vector, load as held
    from every
    union all
    select layer_id, expert_id, 'contributions' as vector, contribution as held
    from every
    union all
    select layer_id, expert_id, 'listed' as vector, listed as held
    from every
),
placed as (
    select
        vectors.layer_id,
        vectors.vector,
        vectors.held,
        row_number() over (
            partition by vectors.layer_id, vectors.vector
            order by vectors.held, vectors.expert_id
        ) as place
    from vectors
),
steps as (
    select layer_id, vector, place, held
    from placed
    union all
    select layer_id, vector, place - 1 as place, 0 * held as held
    from placed
    where place = 1
),
running as (
    select
        steps.layer_id,
        steps.vector,
        steps.place,
        sum(steps.held) over (
            partition by steps.layer_id, steps.vector
            order by steps.place
            rows between unbounded preceding and current row
        ) as held
    from steps
),
totals as (
    select running.layer_id, running.vector, max(running.held) as total
    from running
    group by running.layer_id, running.vector
),
widths as (
    select
        totals.layer_id,
        totals.vector,
        totals.total,
        cast(rules.num_experts as double) as all_experts,
        case
            when totals.vector = 'listed' and rules.depth < rules.num_experts
                then cast(rules.depth as double)
            else cast(rules.num_experts as double)
        end as width
    from totals
    cross join rules
    where totals.total > 0
)
select
    running.layer_id,
    running.vector,
    cast(running.place as bigint) as num_least,
    running.place / widths.all_experts as share_of_experts,
    running.held / widths.total as share,
    greatest(0, (running.place - widths.all_experts + widths.width) / widths.width)
        as share_equal
from running
join widths on running.layer_id = widths.layer_id and running.vector = widths.vector
order by running.layer_id, running.vector, running.place
