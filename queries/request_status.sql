-- request_status: how many requests of a run are complete, skipped, uncaptured or aborted.
--
-- Analyses count the complete ones.
--
-- reads   requests
-- binds   $run_id
-- yields  status, num_requests [requests]
-- order   status
select status, count(*) as num_requests
from requests
where run_id = $run_id
group by status
order by status
