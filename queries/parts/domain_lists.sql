-- parts/domain_lists: each domain's experts by ECI, equal ones by id, and how deep lists go.
--
-- behind  domain_eci
-- reads   model
-- binds   $rank_cutoff
-- yields  rules, ranked
-- order   none
rules as (
    select
        num_experts,
        case when $rank_cutoff > 0 then $rank_cutoff else top_k end as depth
    from model
),
ranked as (
    select
        contributions.layer_id,
        contributions.domain,
        contributions.expert_id,
        contributions.num_choices,
        contributions.eci,
        row_number() over (
            partition by contributions.layer_id, contributions.domain
            order by contributions.eci desc, contributions.expert_id
        ) as place
    from contributions
)
