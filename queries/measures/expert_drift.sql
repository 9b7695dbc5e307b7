-- expert_drift: how each expert's load changes from one run to another.
--
-- Load is an expert's share of its layer's choices; the changes of a layer sum to 0. The other run
-- is a checkpoint or variant of the same model, best on the same requests. The null exchanges the
-- runs of whole requests, so it says how much change the choice of requests alone makes.
--
-- asks    Which experts win or lose load from one checkpoint to another?
-- source  SAME (arXiv 2602.01990), expert usage of the same inputs under successive checkpoints
-- parts   loads_of_runs
-- reads   expert_usage, other_expert_usage, experts
-- binds   none
-- yields  layer_id, expert_id, load [share of the layer's choices],
--         other_load [share of the layer's choices], load_change [other - this]
-- key     layer_id, expert_id
-- values  load_change
-- null    runs
-- order   layer_id, expert_id
with loads as (
    select
        experts.layer_id,
        experts.expert_id,
        coalesce(used.num_choices, 0) / totals.total as load,
        coalesce(other_used.num_choices, 0) / other_totals.total as other_load
    from experts
    left join totals on experts.layer_id = totals.layer_id
    left join other_totals on experts.layer_id = other_totals.layer_id
    left join used on experts.layer_id = used.layer_id and experts.expert_id = used.expert_id
    left join other_used
        on experts.layer_id = other_used.layer_id and experts.expert_id = other_used.expert_id
)
select layer_id, expert_id, load, other_load, other_load - load as load_change
from loads
order by layer_id, expert_id
