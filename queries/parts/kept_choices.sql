-- parts/kept_choices: what experts have where tokens keep fewer of those they chose.
--
-- reads   budget_usage
-- binds   none
-- yields  kept
-- order   none
kept as (
    select budget, layer_id, domain, expert_id, weight_sum, share_sum
    from budget_usage
)
