-- inputs/spark/expert_logits: inputs/expert_logits in the dialect of Spark.
--
-- reads   logit_entries, scoped_requests
-- binds   none (a view)
-- yields  request_id, origin, domain, position [tokens, from 0], layer_id, expert_id,
--         logit [of the router]
-- order   none
with listed as (
    select
        scoped_requests.request_id,
        logit_entries.origin,
        scoped_requests.domain,
        logit_entries.position,
        logit_entries.layer_id,
        posexplode(logit_entries.logits) as (place, logit)
    from logit_entries
    join scoped_requests on logit_entries.origin = scoped_requests.origin
)
select
    request_id,
    origin,
    domain,
    position,
    layer_id,
    cast(place as smallint) as expert_id,
    cast(logit as double) as logit
from listed
