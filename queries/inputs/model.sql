-- inputs/model: size of the routed part of the model, one row.
--
-- reads   asked
-- binds   none (a view)
-- yields  num_experts [E of a layer], top_k [k],
--         renormalised [boolean, chosen gate weights are scaled to sum to 1]
-- order   none
select num_experts, top_k, renormalised
from asked
