-- expert_load: the share of a layer's choices that each expert takes.
--
-- 1 / E is an equal share; relative load is the share over it. An expert that is never chosen has
-- load 0. The null draws each token's k experts evenly and independently, so its band is narrower
-- than that of real tokens, which come in requests; the interval is over requests.
--
-- asks    Which experts take most of the load, and which none?
-- source  DeepSeek-V3 (arXiv 2412.19437) 4.5.3 for relative load
-- reads   expert_usage, experts, model
-- binds   none
-- yields  layer_id, expert_id, num_choices [choices], load [share of the layer's choices],
--         relative_load [load over 1 / E]
-- key     layer_id, expert_id
-- values  load, relative_load
-- null    uniform
-- order   layer_id, expert_id
with used as (
    select layer_id, expert_id, sum(num_choices) as num_choices
    from expert_usage
    group by layer_id, expert_id
),
totals as (
    select layer_id, sum(num_choices) as total
    from used
    group by layer_id
)
select
    experts.layer_id,
    experts.expert_id,
    cast(coalesce(used.num_choices, 0) as bigint) as num_choices,
    coalesce(used.num_choices, 0) / cast(totals.total as double) as load,
    coalesce(used.num_choices, 0) * model.num_experts / cast(totals.total as double)
        as relative_load
from experts
join totals on experts.layer_id = totals.layer_id
left join used on experts.layer_id = used.layer_id and experts.expert_id = used.expert_id
cross join model
order by experts.layer_id, experts.expert_id
