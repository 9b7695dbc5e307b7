-- parts/committee_shares: size and ranks of each layer's committee, and its share of listed ECI.
--
-- behind  domain_eci, domain_lists, committee_members
-- reads   none
-- binds   none
-- yields  committees, coverages, shares
-- order   none
committees as (
    select
        points.layer_id,
        sum(case when compared.beaten is null then 0 else 1 end) as num_candidates,
        cast(sum(case when compared.beaten = 0 then 1 else 0 end) as double) as size,
        sum(case when compared.beaten = 0 then points.rank_mean else 0 end) as rank_mean_sum,
        sum(case when compared.beaten = 0 then points.rank_var else 0 end) as rank_var_sum,
        sum(case when compared.beaten = 0 then points.listed_sum else 0 end) as member_sum,
        sum(points.listed_sum) as listed_sum
    from points
    left join compared
        on points.layer_id = compared.layer_id and points.expert_id = compared.expert_id
    group by points.layer_id
),
coverages as (
    select
        committees.layer_id,
        cast(committees.num_candidates as bigint) as num_candidates,
        committees.size,
        committees.rank_mean_sum / nullif(committees.size, 0) as rank_mean,
        committees.rank_var_sum / nullif(committees.size, 0) as rank_var,
        case
            when committees.listed_sum > 0 then committees.member_sum / committees.listed_sum
            else 0
        end as coverage,
        rules.num_experts,
        cast(rules.depth as double) as depth
    from committees
    cross join rules
),
shares as (
    select
        layer_id,
        num_candidates,
        size,
        rank_mean,
        rank_var,
        coverage,
        size / depth as coverage_equal_weight,
        coverage / nullif(size / depth, 0) as coverage_lift,
        case
            when size = 0 or size >= num_experts then 1
            when 1 - coverage >= 1e-12
                then coverage / size / ((1 - coverage) / (num_experts - size))
        end as influence_density,
        case
            when size = 0 or size >= num_experts then 1
            when 1 - coverage < 1e-12 then 0
            else (1 - coverage) / (num_experts - size) / nullif(coverage / size, 0)
        end as inverse_density,
        case
            when size < depth then (num_experts - size) / (depth - size)
        end as influence_density_equal_weight
    from coverages
)
