-- inputs/budget_usage: what each request used in the scope if its tokens kept fewer experts.
--
-- reads   budget_entries, scoped_requests
-- binds   none (a view)
-- yields  request_id, origin, domain, layer_id, budget [experts that a token keeps], expert_id,
--         num_choices [tokens that keep it], weight_sum [sum of gate weights],
--         share_sum [the same over the sum of those that the token keeps]
-- order   none
select
    scoped_requests.request_id,
    origin,
    scoped_requests.domain,
    budget_entries.layer_id,
    budget_entries.budget,
    budget_entries.expert_id,
    budget_entries.num_choices,
    budget_entries.weight_sum,
    budget_entries.share_sum
from budget_entries
join scoped_requests using (origin)
