-- inputs/cells: 64 cells that cut the numbers from 0 to 1, narrow near 0.
--
-- The i-th ends at (i / 64)^4: where thousands of probabilities lie below 0.01, equal cells would
-- hold them all in one. In the DuckDB dialect.
--
-- reads   asked
-- binds   none (a view)
-- yields  cell [1 to 64], low, high [ends of the cell]
-- order   none
select
    place as cell,
    power((place - 1) / 64.0, 4) as low,
    power(place / 64.0, 4) as high
from (
    select unnest(generate_series(1, 64))::integer as place
    from asked
)
