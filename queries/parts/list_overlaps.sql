-- parts/list_overlaps: how many experts the lists of every two domains share.
--
-- behind  domain_eci, domain_lists
-- reads   none
-- binds   none
-- yields  listed, lists, shared, pairs
-- order   none
listed as (
    select ranked.layer_id, ranked.domain, ranked.expert_id
    from ranked
    cross join rules
    where ranked.place <= rules.depth
),
lists as (
    select listed.layer_id, listed.domain, count(*) as size
    from listed
    group by listed.layer_id, listed.domain
),
shared as (
    select
        one.layer_id,
        one.domain as domain_a,
        another.domain as domain_b,
        count(*) as num_shared
    from listed as one
    join listed as another
        on one.layer_id = another.layer_id and one.expert_id = another.expert_id
    where one.domain < another.domain
    group by one.layer_id, one.domain, another.domain
),
pairs as (
    select
        one.layer_id,
        one.domain as domain_a,
        another.domain as domain_b,
        one.size as size_a,
        another.size as size_b,
        coalesce(shared.num_shared, 0) as num_shared,
        coalesce(shared.num_shared, 0)
            / cast(one.size + another.size - coalesce(shared.num_shared, 0) as double) as jaccard
    from lists as one
    join lists as another on one.layer_id = another.layer_id
    left join shared
        on one.layer_id = shared.layer_id
        and one.domain = shared.domain_a
        and another.domain = shared.domain_b
    where one.domain < another.domain
)
