"""Measures by Spark: its own texts where lists are unnested, transpiled ones everywhere else."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import polars as pl

from tracer.analysis.measures.engines import Points, Relation
from tracer.analysis.measures.inputs import renamed
from tracer.errors import InputError, MissingLibraryError, QueryError, first_line
from tracer.schema import arrow_schema, query_path

__all__ = ["in_spark", "take"]

_LOCAL = "local[*]"
_PARTITIONS = 4  # of a shuffle on this machine, where the default of 200 costs seconds


def take(name: str, points: Points, *, master: str | None = None) -> pl.DataFrame:
    """Rows of the measure ``name``.

    Args:
        name: of the measure.
        points: its files, relations and text.
        master: URL of a Spark master; None takes the session of this process, or starts one here.

    Raises:
        MissingLibraryError: pyspark or sqlglot is not installed.
        InputError: Spark does not start, or the lake is in a bucket.
        QueryError: Spark refuses the text.
    """
    if remote := [file for files in points.files.values() for file in files if "://" in file]:
        raise InputError(
            f"Spark is given files of folders only, not {remote[0]}",
            "--engine duckdb reads buckets; or copy the lake into a folder.",
        )
    with _session(master) as spark:
        from pyspark.errors import PySparkException

        try:
            for table, files in points.files.items():
                _read(spark, table, files).createOrReplaceTempView(table)
            for frame, held in points.frames.items():
                spark.createDataFrame(held.to_arrow()).createOrReplaceTempView(frame)
            for relation in points.relations:
                spark.sql(_text(relation)).createOrReplaceTempView(relation.name)
            steps, last = in_steps(points.text)
            for step, text, often in steps:
                rows = spark.sql(text)
                kept = rows.localCheckpoint() if often else rows
                # Named anew, since steps that share columns cannot be joined otherwise.
                kept.toDF(*kept.columns).createOrReplaceTempView(step)
            found = spark.sql(last).toArrow()
        except PySparkException as error:
            raise QueryError(
                f"Spark refuses the measure {name!r}: {first_line(error)}",
                "--engine duckdb runs every measure.",
            ) from error
    points_found: pl.DataFrame = pl.from_arrow(found)  # type: ignore[assignment]
    return points_found.with_columns(pl.selectors.decimal().cast(pl.Float64))


def in_spark(text: str) -> str:
    """SQL of DuckDB's dialect in that of Spark.

    Lists are indexed from 1 on, and are null beyond their end, in DuckDB; numbers with a point are
    doubles.
    """
    made: str = _tree(text).sql(dialect="spark", comments=False)
    return made


def in_steps(text: str) -> tuple[list[tuple[str, str, bool]], str]:
    """The same in steps: views to make (name, text, whether it is read more than once), the rest.

    Spark computes what a `with` names again wherever it is read: a table that six doublings read,
    sixty-four times. What is read more than once is therefore to be kept.
    """
    tree = _tree(text)
    from sqlglot import exp

    parts = list(tree.ctes)
    names = {part.alias for part in parts}
    read = [table.name for table in tree.find_all(exp.Table)]
    for table in tree.find_all(exp.Table):
        if table.name in names:
            table.set("alias", exp.TableAlias(this=exp.to_identifier(table.alias_or_name)))
            table.set("this", exp.to_identifier(f"step_{table.name}"))
    steps = [
        (
            f"step_{part.alias}",
            part.this.sql(dialect="spark", comments=False),
            read.count(part.alias) > 1,
        )
        for part in parts
    ]
    for key in ("with", "with_"):  # it had another name before sqlglot 28
        tree.set(key, None)
    return steps, tree.sql(dialect="spark", comments=False)


def _tree(text: str) -> Any:
    """What SQL of DuckDB's dialect says, as a tree that is written in Spark's."""
    try:
        import sqlglot
        from sqlglot import exp
    except ImportError as error:
        raise MissingLibraryError("sqlglot", "spark") from error

    def changed(node: Any) -> Any:
        if isinstance(node, exp.Bracket) and len(node.expressions) == 1:
            place = node.expressions[0]
            # the parser has counted from 0 already where the place is a literal
            if node.args.get("offset") or isinstance(place, exp.Literal | exp.Neg):
                place = exp.Add(this=exp.paren(place), expression=exp.Literal.number(1))
            arguments = [node.this, exp.cast(place, "int")]
            return exp.Anonymous(this="try_element_at", expressions=arguments)
        if isinstance(node, exp.Literal) and not node.is_string and not node.is_int:
            return exp.cast(exp.Literal.string(node.this), "double")
        return node

    (tree,) = sqlglot.parse(text, read="duckdb")
    return tree.transform(changed)


def _text(relation: Relation) -> str:
    path = query_path(f"inputs/spark/{relation.plain}")
    if path.is_file():
        prefix = relation.name.removesuffix(relation.plain)
        return renamed(path.read_text(encoding="utf-8"), prefix)
    if re.search(r"\bunnest\b", relation.text):
        raise InputError(f"there is no queries/inputs/spark/{relation.plain}.sql")
    return in_spark(relation.text)


def _read(spark: Any, table: str, files: Sequence[str]) -> Any:
    if not files:
        return spark.createDataFrame(arrow_schema(table).empty_table())
    # columns that are younger than a file
    return spark.read.option("mergeSchema", "true").parquet(*files)


@contextmanager
def _session(master: str | None) -> Iterator[Any]:
    """The session of this process, else a new one, which ends with the block."""
    try:
        from py4j.protocol import Py4JJavaError
        from pyspark.errors import PySparkException
        from pyspark.sql import SparkSession
    except ImportError as error:
        raise MissingLibraryError("pyspark", "spark") from error
    if master is None and (active := SparkSession.getActiveSession()):
        yield active
        return
    builder = SparkSession.builder.master(master or _LOCAL).appName("tracer query")
    if (master or _LOCAL).startswith("local"):
        builder = builder.config("spark.driver.host", "127.0.0.1").config(
            "spark.sql.shuffle.partitions", _PARTITIONS
        )
    builder = builder.config("spark.ui.enabled", "false").config(
        "spark.ui.showConsoleProgress", "false"
    )
    try:
        spark = builder.getOrCreate()
    except Py4JJavaError as error:
        reason = str(error.java_exception.getMessage())
        raise InputError(f"Spark does not start: {reason}", "--master names another.") from error
    except PySparkException as error:
        raise InputError(
            f"Spark does not start: {first_line(error)}", "it needs Java 17 or newer."
        ) from error
    spark.sparkContext.setLogLevel("ERROR")
    try:
        yield spark
    finally:
        spark.stop()
