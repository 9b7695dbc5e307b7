-- parts/budget_committees: the committee of every budget, and what it has of that of budget k.
--
-- behind  kept_choices or kept_candidates
-- reads   model, scoped_requests
-- binds   $min_presence, $renormalise
-- yields  domains, rules, used, ranked, sums, totals, points,
--         thresholds, candidates, members, full_committees, full_sizes, found
-- order   none
domains as (
    select count(distinct domain) as num_domains
    from scoped_requests
),
rules as (
    select
        top_k,
        num_experts,
        case
            when $renormalise = 'model' and renormalised then 1
            when $renormalise = 'yes' then 1
            else 0
        end as scaled
    from model
),
used as (
    select
        kept.budget,
        kept.layer_id,
        kept.domain,
        kept.expert_id,
        sum(case when rules.scaled = 1 then kept.share_sum else kept.weight_sum end) as weight_sum
    from kept
    cross join rules
    group by kept.budget, kept.layer_id, kept.domain, kept.expert_id
),
ranked as (
    select
        budget,
        layer_id,
        expert_id,
        row_number() over (
            partition by budget, layer_id, domain order by weight_sum desc, expert_id
        ) as place
    from used
),
sums as (
    select
        budget,
        layer_id,
        expert_id,
        sum(case when place <= budget then 1 else 0 end) as num_listed,
        sum(case when place <= budget then place else 0 end) as rank_sum,
        sum(case when place <= budget then place * place else 0 end) as square_sum
    from ranked
    group by budget, layer_id, expert_id
),
totals as (
    select
        sums.budget,
        sums.layer_id,
        sums.expert_id,
        sums.num_listed,
        domains.num_domains,
        cast(
            sums.rank_sum + (domains.num_domains - sums.num_listed) * (sums.budget + 1) as double
        ) as rank_sum,
        cast(
            sums.square_sum
            + (domains.num_domains - sums.num_listed) * (sums.budget + 1) * (sums.budget + 1)
            as double
        ) as square_sum
    from sums
    cross join domains
    where sums.num_listed > 0
),
points as (
    select
        budget,
        layer_id,
        expert_id,
        num_listed,
        num_domains,
        rank_sum / num_domains as rank_mean,
        (num_domains * square_sum - rank_sum * rank_sum) / (num_domains * num_domains)
            as rank_var
    from totals
),
thresholds as (
    select
        budget,
        layer_id,
        least(
            max(num_listed), greatest(1, ceil(max(num_domains) * $min_presence - 1e-9))
        ) as least_listed
    from points
    group by budget, layer_id
),
candidates as (
    select
        points.budget,
        points.layer_id,
        points.expert_id,
        points.rank_mean,
        points.rank_var
    from points
    join thresholds
        on points.budget = thresholds.budget and points.layer_id = thresholds.layer_id
    where points.num_listed >= thresholds.least_listed
),
members as (
    select one.budget, one.layer_id, one.expert_id
    from candidates as one
    join candidates as another
        on one.budget = another.budget and one.layer_id = another.layer_id
    group by one.budget, one.layer_id, one.expert_id
    having max(
        case
            when another.rank_mean <= one.rank_mean
                and another.rank_var <= one.rank_var
                and (another.rank_mean < one.rank_mean or another.rank_var < one.rank_var)
                then 1
            else 0
        end
    ) = 0
),
full_committees as (
    select members.layer_id, members.expert_id
    from members
    join rules on members.budget = rules.top_k
),
full_sizes as (
    select layer_id, count(*) as size
    from full_committees
    group by layer_id
),
found as (
    select
        members.layer_id,
        members.budget,
        count(*) as size,
        count(full_committees.expert_id) as num_kept
    from members
    left join full_committees
        on members.layer_id = full_committees.layer_id
        and members.expert_id = full_committees.expert_id
    group by members.layer_id, members.budget
)
