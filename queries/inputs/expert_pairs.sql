-- inputs/expert_pairs: how many tokens in the scope chose both of two experts.
--
-- Pairs that no token chose have no row. Spark runs this text; DuckDB and Polars count the same in
-- arrays (tracer/analysis/measures/pairs.py), for a quarter of the time.
--
-- reads   routed_tokens, ranks
-- binds   none (a view)
-- yields  layer_id, expert_id, second_expert_id [the larger id], num_tokens [tokens]
-- order   none
with rank_pairs as (
    select lower_ranks.rank as one, higher_ranks.rank as two
    from ranks as lower_ranks
    join ranks as higher_ranks on lower_ranks.rank < higher_ranks.rank
),
counted as (
    -- In the order of ranks; the smaller id is told from the larger one once for each group.
    select
        routed_tokens.layer_id,
        routed_tokens.expert_ids[rank_pairs.one] as one,
        routed_tokens.expert_ids[rank_pairs.two] as two,
        count(*) as num_tokens
    from routed_tokens
    cross join rank_pairs
    group by
        routed_tokens.layer_id,
        routed_tokens.expert_ids[rank_pairs.one],
        routed_tokens.expert_ids[rank_pairs.two]
)
select
    layer_id,
    least(one, two) as expert_id,
    greatest(one, two) as second_expert_id,
    cast(sum(num_tokens) as bigint) as num_tokens
from counted
group by layer_id, least(one, two), greatest(one, two)
