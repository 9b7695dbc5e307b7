-- inputs/candidate_usage: what each request used in the scope if its tokens had other budgets.
--
-- reads   candidate_entries, scoped_requests
-- binds   none (a view)
-- yields  request_id, origin, domain, layer_id, budget [experts that a token keeps], expert_id,
--         num_choices [tokens that keep it], weight_sum [sum of scores],
--         share_sum [the same over the sum of those that the token keeps]
-- order   none
select
    scoped_requests.request_id,
    origin,
    scoped_requests.domain,
    candidate_entries.layer_id,
    candidate_entries.budget,
    candidate_entries.expert_id,
    candidate_entries.num_choices,
    candidate_entries.weight_sum,
    candidate_entries.share_sum
from candidate_entries
join scoped_requests using (origin)
