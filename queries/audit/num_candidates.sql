-- audit/num_candidates: how many candidates every token of a run has at least.
--
-- reads   candidates
-- binds   $run_id
-- yields  num_candidates [null where none were recorded]
-- order   one row
select min(len(expert_ids)) as num_candidates
from candidates
where run_id = $run_id
