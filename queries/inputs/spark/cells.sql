-- inputs/spark/cells: inputs/cells in the dialect of Spark.
--
-- reads   asked
-- binds   none (a view)
-- yields  cell [1 to 64], low, high [ends of the cell]
-- order   none
select
    place as cell,
    power((place - 1) / cast(64 as double), 4) as low,
    power(place / cast(64 as double), 4) as high
from (
    select explode(sequence(1, 64)) as place
    from asked
)
