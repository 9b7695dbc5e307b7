-- dirichlet_fit: how far each expert's probability is from what a Dirichlet prior says.
--
-- Under a symmetric Dirichlet distribution of the router's probabilities each expert's is
-- Beta(alpha, (E - 1) alpha). alpha is of the layer, by moments as in router_confidence. Distance
-- is the integral of the squared difference of the two distribution functions over the Beta
-- distribution (Cramer and von Mises), taken over 64 cells that are narrow near 0: in a cell the
-- density x^(a - 1) (1 - x)^(b - 1) is integrated exactly in its first factor, the second is that
-- of the middle, and the squared difference is the mean of both ends. At most 1/3; 0 where they
-- agree. The published loss leaves its norm open; this one is ours. Where experts differ in their
-- mean, all of them lie off a symmetric prior.
-- The null lets each expert keep its logits but on other tokens.
--
-- asks    Are the router's probabilities those of a Dirichlet prior, expert by expert?
-- source  DPSL (arXiv 2510.01185)
-- reads   expert_logits, experts, model, cells
-- binds   none
-- yields  layer_id, expert_id, mean_probability, alpha [of the layer], distance [0 to 1/3]
-- key     layer_id, expert_id
-- values  mean_probability, distance
-- null    logits
-- order   layer_id, expert_id
with largest as (
    select request_id, position, layer_id, max(logit) as logit
    from expert_logits
    group by request_id, position, layer_id
),
weights as (
    select
        expert_logits.request_id,
        expert_logits.position,
        expert_logits.layer_id,
        expert_logits.expert_id,
        exp(expert_logits.logit - largest.logit) as weight
    from expert_logits
    join largest
        on expert_logits.request_id = largest.request_id
        and expert_logits.position = largest.position
        and expert_logits.layer_id = largest.layer_id
),
totals as (
    select request_id, position, layer_id, sum(weight) as total
    from weights
    group by request_id, position, layer_id
),
placed as (
    select
        weights.layer_id,
        weights.expert_id,
        weights.weight / totals.total as probability,
        -- The cell that ends at or behind it; rounding at its end moves nothing by more than one.
        greatest(cast(ceil(64 * power(weights.weight / totals.total, 0.25)) as integer), 1) as cell
    from weights
    join totals
        on weights.request_id = totals.request_id
        and weights.position = totals.position
        and weights.layer_id = totals.layer_id
),
moments as (
    select
        placed.layer_id,
        max(cast(model.num_experts as double)) as num_experts,
        avg(power(placed.probability - 1 / cast(model.num_experts as double), 2)) as square
    from placed
    cross join model
    group by placed.layer_id
),
priors as (
    select
        layer_id,
        num_experts,
        ((1 / num_experts) * (1 - 1 / num_experts) / nullif(square, 0) - 1) / num_experts as alpha
    from moments
),
counted as (
    select layer_id, expert_id, cell, cast(count(*) as double) as num_tokens
    from placed
    group by layer_id, expert_id, cell
),
means as (
    select
        layer_id,
        expert_id,
        avg(probability) as mean_probability,
        cast(count(*) as double) as num_tokens
    from placed
    group by layer_id, expert_id
),
masses as (
    select
        priors.layer_id,
        cells.cell,
        (power(cells.high, priors.alpha) - power(cells.low, priors.alpha)) / priors.alpha
            * power(
                1 - (cells.low + cells.high) / 2, (priors.num_experts - 1) * priors.alpha - 1
            ) as mass
    from priors
    cross join cells
    where priors.alpha > 0
),
prior_cells as (
    select
        layer_id,
        cell,
        -- Of a prior so narrow that all cells are 0 there is no distance.
        mass / nullif(sum(mass) over (partition by layer_id), 0) as mass,
        sum(mass) over (partition by layer_id order by cell)
            / nullif(sum(mass) over (partition by layer_id), 0) as below
    from masses
),
expert_cells as (
    select
        means.layer_id,
        means.expert_id,
        cells.cell,
        coalesce(counted.num_tokens, 0) / means.num_tokens as share,
        sum(coalesce(counted.num_tokens, 0)) over (
            partition by means.layer_id, means.expert_id order by cells.cell
        ) / means.num_tokens as below
    from means
    cross join cells
    left join counted
        on means.layer_id = counted.layer_id
        and means.expert_id = counted.expert_id
        and cells.cell = counted.cell
),
distances as (
    select
        expert_cells.layer_id,
        expert_cells.expert_id,
        -- The mean of both ends of each cell.
        sum(
            prior_cells.mass * (
                power(expert_cells.below - prior_cells.below, 2)
                + power(
                    expert_cells.below - expert_cells.share
                    - (prior_cells.below - prior_cells.mass),
                    2
                )
            )
        ) / 2 as distance
    from expert_cells
    join prior_cells
        on expert_cells.layer_id = prior_cells.layer_id and expert_cells.cell = prior_cells.cell
    group by expert_cells.layer_id, expert_cells.expert_id
)
select
    experts.layer_id,
    experts.expert_id,
    means.mean_probability,
    priors.alpha,
    distances.distance
from experts
left join means
    on experts.layer_id = means.layer_id and experts.expert_id = means.expert_id
left join priors on experts.layer_id = priors.layer_id
left join distances
    on experts.layer_id = distances.layer_id and experts.expert_id = distances.expert_id
order by experts.layer_id, experts.expert_id
