-- inputs/model: size of the routed part of the model, one row.
--
-- reads   asked
-- binds   none (a view)
-- yields  num_experts [E of a layer], top_k [k]
-- order   none
select num_experts, top_k
from asked
