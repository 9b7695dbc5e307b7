-- inputs/spark/expert_choices: inputs/expert_choices in the dialect of Spark.
--
-- reads   routed_tokens
-- binds   none (a view)
-- yields  request_id, origin, domain, phase, position [tokens, from 0], layer_id,
--         rank [1 = largest gate weight of the token], expert_id, gate_weight
-- order   none
with listed as (
    select
        request_id,
        origin,
        domain,
        phase,
        position,
        layer_id,
        posexplode(arrays_zip(expert_ids, gate_weights)) as (place, entry)
    from routed_tokens
)
select
    request_id,
    origin,
    domain,
    phase,
    position,
    layer_id,
    place + 1 as rank,
    entry.expert_ids as expert_id,
    cast(entry.gate_weights as double) as gate_weight
from listed
