-- domain_experts: for how many domains an expert is among the most used.
--
-- An expert serves a domain where it is chosen at least share_of_max times as often as the domain's
-- most chosen expert of the layer. Few requests scatter, so domains differ by chance too: chance
-- says how many domains the expert would serve if each had any requests.
--
-- asks    Which experts serve one domain, which several, and which none?
-- source  DES-MoE (arXiv 2509.16882) Eq. 5-6, with counts of all tokens at once in place of a
--         moving average
-- reads   expert_usage, experts
-- binds   $share_of_max = 0.6: least use of an expert over that of the domain's most used, 0 to 1.
-- yields  layer_id, expert_id, num_domains [domains served],
--         share_of_domains [num_domains over all domains],
--         usage_of_max [largest over the domains of its use over the most used expert's]
-- key     layer_id, expert_id
-- values  num_domains, usage_of_max
-- jumps   num_domains
-- null    labels
-- order   layer_id, expert_id
with used as (
    select domain, layer_id, expert_id, cast(sum(num_choices) as double) as num_choices
    from expert_usage
    group by domain, layer_id, expert_id
),
most as (
    select domain, layer_id, max(num_choices) as num_choices
    from used
    group by domain, layer_id
),
served as (
    select
        most.domain,
        experts.layer_id,
        experts.expert_id,
        coalesce(used.num_choices, 0) / most.num_choices as usage_of_max,
        case
            when coalesce(used.num_choices, 0) >= $share_of_max * most.num_choices then 1 else 0
        end as serves
    from experts
    join most on experts.layer_id = most.layer_id
    left join used
        on most.domain = used.domain
        and experts.layer_id = used.layer_id
        and experts.expert_id = used.expert_id
)
select
    layer_id,
    expert_id,
    cast(sum(serves) as bigint) as num_domains,
    sum(serves) / cast(count(*) as double) as share_of_domains,
    max(usage_of_max) as usage_of_max
from served
group by layer_id, expert_id
order by layer_id, expert_id
