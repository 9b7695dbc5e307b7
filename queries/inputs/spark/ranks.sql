-- inputs/spark/ranks: inputs/ranks in the dialect of Spark.
--
-- reads   asked
-- binds   none (a view)
-- yields  rank [1 = largest gate weight of the token, to k]
-- order   none
select explode(sequence(1, top_k)) as rank
from asked
