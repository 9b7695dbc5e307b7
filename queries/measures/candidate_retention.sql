-- candidate_retention: how much of a committee is left where tokens keep more or fewer experts.
--
-- For every budget k' from 1 to M, each token keeps its k' best candidates and the lists of domains
-- go k' deep; committees are chosen as in `committee`. Retained is the share of the committee of
-- budget k that is also in that of k'. The closed form is what experts drawn at random, as many as
-- the committee of k' has, would retain. Candidates are what `tracer capture --top-m` records;
-- their scores stand for gate weights, so the router must be a softmax without a selection bias.
-- They are taken over all experts: of a model that chooses within groups, the k best are not always
-- those chosen. Ranks depend on k' through the depth of lists, so retention beyond k mixes both
-- effects. Weights of the experts that a token keeps can be scaled to sum to 1. The default does so
-- where the run's model scales those of its k, as the model would with k' experts, and as the
-- weights of the authors' code are. "no" has the scores as they are, the softmax over all experts,
-- which the paper's equations average (Eq. 2 and 3). Hidden states are those of the run, so a model
-- that runs with k' experts may differ; the paper does not say which it did. The null renames
-- experts in each domain on its own, in all budgets alike.
--
-- asks    Does the committee stay when tokens have more experts?
-- source  COMMITTEEAUDIT (arXiv 2601.03425 v2) section 4.3, Figure 5
-- reads   candidate_usage, model, scoped_requests
-- binds   $min_presence = 0.8: least share of domains that must list a candidate.
--         $renormalise = "model" or "yes" or "no": whether the weights that a token keeps are
--         scaled to sum to 1, model: as the run's model does.
-- yields  layer_id, budget [experts a token keeps], size [experts in the committee],
--         retained [share of the committee of budget k],
--         retained_closed_form [for experts at random]
-- key     layer_id, budget
-- values  size, retained
-- jumps   size, retained
-- null    experts
-- order   layer_id, budget
with domains as (
    select count(distinct domain) as num_domains
    from scoped_requests
),
rules as (
    select
        top_k,
        num_experts,
        case
            when $renormalise = 'model' and renormalised then 1
            when $renormalise = 'yes' then 1
            else 0
        end as scaled
    from model
),
used as (
    select
        candidate_usage.budget,
        candidate_usage.layer_id,
        candidate_usage.domain,
        candidate_usage.expert_id,
        sum(
            case
                when rules.scaled = 1 then candidate_usage.share_sum
                else candidate_usage.weight_sum
            end
        ) as weight_sum
    from candidate_usage
    cross join rules
    group by
        candidate_usage.budget,
        candidate_usage.layer_id,
        candidate_usage.domain,
        candidate_usage.expert_id
),
ranked as (
    select
        budget,
        layer_id,
        expert_id,
        row_number() over (
            partition by budget, layer_id, domain order by weight_sum desc, expert_id
        ) as place
    from used
),
sums as (
    select
        budget,
        layer_id,
        expert_id,
        sum(case when place <= budget then 1 else 0 end) as num_listed,
        sum(case when place <= budget then place else 0 end) as rank_sum,
        sum(case when place <= budget then place * place else 0 end) as square_sum
    from ranked
    group by budget, layer_id, expert_id
),
totals as (
    select
        sums.budget,
        sums.layer_id,
        sums.expert_id,
        sums.num_listed,
        domains.num_domains,
        cast(
            sums.rank_sum + (domains.num_domains - sums.num_listed) * (sums.budget + 1) as double
        ) as rank_sum,
        cast(
            sums.square_sum
            + (domains.num_domains - sums.num_listed) * (sums.budget + 1) * (sums.budget + 1)
            as double
        ) as square_sum
    from sums
    cross join domains
    where sums.num_listed > 0
),
points as (
    select
        budget,
        layer_id,
        expert_id,
        num_listed,
        num_domains,
        rank_sum / num_domains as rank_mean,
        (num_domains * square_sum - rank_sum * rank_sum) / (num_domains * num_domains)
            as rank_var
    from totals
),
thresholds as (
    select
        budget,
        layer_id,
        least(
            max(num_listed), greatest(1, ceil(max(num_domains) * $min_presence - 1e-9))
        ) as least_listed
    from points
    group by budget, layer_id
),
candidates as (
    select
        points.budget,
        points.layer_id,
        points.expert_id,
        points.rank_mean,
        points.rank_var
    from points
    join thresholds
        on points.budget = thresholds.budget and points.layer_id = thresholds.layer_id
    where points.num_listed >= thresholds.least_listed
),
members as (
    select one.budget, one.layer_id, one.expert_id
    from candidates as one
    join candidates as another
        on one.budget = another.budget and one.layer_id = another.layer_id
    group by one.budget, one.layer_id, one.expert_id
    having max(
        case
            when another.rank_mean <= one.rank_mean
                and another.rank_var <= one.rank_var
                and (another.rank_mean < one.rank_mean or another.rank_var < one.rank_var)
                then 1
            else 0
        end
    ) = 0
),
full_committees as (
    select members.layer_id, members.expert_id
    from members
    join rules on members.budget = rules.top_k
),
full_sizes as (
    select layer_id, count(*) as size
    from full_committees
    group by layer_id
),
found as (
    select
        members.layer_id,
        members.budget,
        count(*) as size,
        count(full_committees.expert_id) as num_kept
    from members
    left join full_committees
        on members.layer_id = full_committees.layer_id
        and members.expert_id = full_committees.expert_id
    group by members.layer_id, members.budget
)
select
    found.layer_id,
    found.budget,
    cast(found.size as double) as size,
    found.num_kept / cast(full_sizes.size as double) as retained,
    found.size / cast(rules.num_experts as double) as retained_closed_form
from found
join full_sizes on found.layer_id = full_sizes.layer_id
cross join rules
order by found.layer_id, found.budget
