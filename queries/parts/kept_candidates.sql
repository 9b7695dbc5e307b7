-- parts/kept_candidates: what experts have where tokens keep fewer or more of their candidates.
--
-- reads   candidate_usage
-- binds   none
-- yields  kept
-- order   none
kept as (
    select budget, layer_id, domain, expert_id, weight_sum, share_sum
    from candidate_usage
)
