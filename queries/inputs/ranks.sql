-- inputs/ranks: the places of a token's choices.
--
-- In the DuckDB dialect.
--
-- reads   asked
-- binds   none (a view)
-- yields  rank [1 = largest gate weight of the token, to k]
-- order   none
select unnest(generate_series(1, top_k))::integer as rank
from asked
