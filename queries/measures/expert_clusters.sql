-- expert_clusters: which experts of a layer requests use together.
--
-- Two experts are joined where their shares of a request's choices correlate over requests by at
-- least least_correlation. A cluster is all that are joined directly or by others, over up to 64
-- steps; its id is its least expert id. An expert that all requests use alike has no correlation
-- and is a cluster of its own. The columns of a layer are repeated for its experts. The null deals
-- a layer's choices anew among requests: loads and lengths of requests stay, so short requests
-- scatter as much, and who is used together is chance. The contrast is null where a layer has no
-- pair within, or none between, clusters; its chance is that of the draws that have one.
-- The cost is experts^2 rows per request and layer, and experts^3 in a layer of one cluster.
--
-- asks    Which experts are used by the same requests?
-- source  MoEC (arXiv 2207.09094) for clusters of experts; its routing probabilities and training
--         loss are replaced by correlated use
-- reads   expert_usage, experts
-- binds   $least_correlation = 0.5: least correlation over requests that joins two experts.
-- yields  layer_id, expert_id, cluster_id [least expert id of the cluster],
--         cluster_size [experts], load [share of the layer's choices],
--         cluster_load [share of the layer's choices], num_clusters [clusters of the layer],
--         within_correlation [mean over pairs of one cluster],
--         between_correlation [mean over pairs of two clusters], contrast [within - between]
-- key     layer_id, expert_id
-- values  cluster_size, cluster_load, num_clusters, contrast
-- jumps   cluster_size, cluster_load, num_clusters, contrast
-- null    dealt
-- order   layer_id, expert_id
with totals as (
    select layer_id, request_id, cast(sum(num_choices) as double) as total
    from expert_usage
    group by layer_id, request_id
),
layers as (
    select layer_id, cast(count(*) as double) as num_requests, sum(total) as total
    from totals
    group by layer_id
),
shares as (
    select
        expert_usage.layer_id,
        expert_usage.request_id,
        expert_usage.expert_id,
        expert_usage.num_choices,
        expert_usage.num_choices / totals.total as share
    from expert_usage
    join totals
        on expert_usage.layer_id = totals.layer_id and expert_usage.request_id = totals.request_id
),
moments as (
    select
        shares.layer_id,
        shares.expert_id,
        sum(shares.num_choices) / max(layers.total) as load,
        sum(shares.share) / max(layers.num_requests) as mean,
        sum(shares.share * shares.share) / max(layers.num_requests) as mean_square
    from shares
    join layers on shares.layer_id = layers.layer_id
    group by shares.layer_id, shares.expert_id
),
varying as (
    select layer_id, expert_id, mean, sqrt(mean_square - mean * mean) as spread
    from moments
    where mean_square - mean * mean > 1e-12 * mean_square
),
products as (
    select
        one.layer_id,
        one.expert_id,
        two.expert_id as other_id,
        sum(one.share * two.share) as product_sum
    from shares as one
    join shares as two
        on one.layer_id = two.layer_id
        and one.request_id = two.request_id
        and one.expert_id < two.expert_id
    group by one.layer_id, one.expert_id, two.expert_id
),
pairs as (
    select
        one.layer_id,
        one.expert_id,
        two.expert_id as other_id,
        (coalesce(products.product_sum, 0) / layers.num_requests - one.mean * two.mean)
            / (one.spread * two.spread) as correlation
    from varying as one
    join varying as two on one.layer_id = two.layer_id and one.expert_id < two.expert_id
    join layers on one.layer_id = layers.layer_id
    left join products
        on one.layer_id = products.layer_id
        and one.expert_id = products.expert_id
        and two.expert_id = products.other_id
),
joined as (
    select layer_id, expert_id, other_id
    from pairs
    where correlation >= $least_correlation
),
within_1 as (
    select layer_id, expert_id, other_id
    from joined
    union all
    select layer_id, other_id as expert_id, expert_id as other_id
    from joined
    union all
    select layer_id, expert_id, expert_id as other_id
    from experts
),
within_2 as (
    select distinct one.layer_id, one.expert_id, two.other_id
    from within_1 as one
    join within_1 as two on one.layer_id = two.layer_id and one.other_id = two.expert_id
),
within_4 as (
    select distinct one.layer_id, one.expert_id, two.other_id
    from within_2 as one
    join within_2 as two on one.layer_id = two.layer_id and one.other_id = two.expert_id
),
within_8 as (
    select distinct one.layer_id, one.expert_id, two.other_id
    from within_4 as one
    join within_4 as two on one.layer_id = two.layer_id and one.other_id = two.expert_id
),
within_16 as (
    select distinct one.layer_id, one.expert_id, two.other_id
    from within_8 as one
    join within_8 as two on one.layer_id = two.layer_id and one.other_id = two.expert_id
),
within_32 as (
    select distinct one.layer_id, one.expert_id, two.other_id
    from within_16 as one
    join within_16 as two on one.layer_id = two.layer_id and one.other_id = two.expert_id
),
within_64 as (
    select distinct one.layer_id, one.expert_id, two.other_id
    from within_32 as one
    join within_32 as two on one.layer_id = two.layer_id and one.other_id = two.expert_id
),
members as (
    select
        within_64.layer_id,
        within_64.expert_id,
        min(within_64.other_id) as cluster_id
    from within_64
    join layers on within_64.layer_id = layers.layer_id
    group by within_64.layer_id, within_64.expert_id
),
clusters as (
    select
        members.layer_id,
        members.cluster_id,
        count(*) as cluster_size,
        sum(coalesce(moments.load, 0)) as cluster_load
    from members
    left join moments
        on members.layer_id = moments.layer_id and members.expert_id = moments.expert_id
    group by members.layer_id, members.cluster_id
),
cluster_counts as (
    select layer_id, count(*) as num_clusters
    from clusters
    group by layer_id
),
contrasts as (
    select
        pairs.layer_id,
        avg(case when one.cluster_id = two.cluster_id then pairs.correlation end)
            as within_correlation,
        avg(case when one.cluster_id <> two.cluster_id then pairs.correlation end)
            as between_correlation
    from pairs
    join members as one
        on pairs.layer_id = one.layer_id and pairs.expert_id = one.expert_id
    join members as two
        on pairs.layer_id = two.layer_id and pairs.other_id = two.expert_id
    group by pairs.layer_id
)
select
    members.layer_id,
    members.expert_id,
    members.cluster_id,
    clusters.cluster_size,
    coalesce(moments.load, 0) as load,
    clusters.cluster_load,
    cluster_counts.num_clusters,
    contrasts.within_correlation,
    contrasts.between_correlation,
    contrasts.within_correlation - contrasts.between_correlation as contrast
from members
join clusters
    on members.layer_id = clusters.layer_id and members.cluster_id = clusters.cluster_id
join cluster_counts on members.layer_id = cluster_counts.layer_id
left join moments
    on members.layer_id = moments.layer_id and members.expert_id = moments.expert_id
left join contrasts on members.layer_id = contrasts.layer_id
order by members.layer_id, members.expert_id
