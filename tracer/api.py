"""The Python face of a lake: SQL as DuckDB relations, tables as frames, measures, audits.

Reached as ``tracer.open_lake``; loading it brings in DuckDB and Polars.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duckdb
import polars as pl

from tracer.analysis.audit import audit
from tracer.analysis.measures.run import MeasureResult, Settings, run_measure
from tracer.analysis.sql import connect
from tracer.errors import InputError
from tracer.records import Audit
from tracer.schema import TABLES, arrow_schema
from tracer.store.lake import Lake

__all__ = ["TraceLake", "open_lake"]


def open_lake(path: Path | str) -> "TraceLake":
    """Open an existing trace lake: a folder, or an ``s3://`` URL.

    Raises:
        NotALakeError: nothing there, or something else.
    """
    return TraceLake(Lake.open(path))


class TraceLake:
    """A lake opened for reading.

    >>> lake = open_lake("./lake")  # doctest: +SKIP
    >>> lake.sql("select count(*) from routing").fetchall()  # doctest: +SKIP
    """

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        self._connection: duckdb.DuckDBPyConnection | None = None

    @property
    def location(self) -> str:
        """Absolute path of the lake's folder, or its URL."""
        return self._lake.location

    def runs(self) -> list[dict[str, Any]]:
        """Rows of `runs`, oldest first."""
        return self._lake.runs()

    def sql(self, query: str) -> duckdb.DuckDBPyRelation:
        """A query over the views runs, requests, tokens, routing, choices, usage, ... .

        The views stand for the lake as it was at the first query; ``refresh`` looks again.
        """
        if self._connection is None:
            self._connection = connect(self._lake)
        return self._connection.sql(query)

    def refresh(self) -> None:
        """Let the next query see what was committed since."""
        self._connection = None

    def scan(self, table: str) -> pl.LazyFrame:
        """A table as a Polars ``LazyFrame``.

        Raises:
            InputError: no such table.
        """
        if table not in TABLES:
            raise InputError(f"no table {table!r}", f"there are: {', '.join(TABLES)}.")
        empty: pl.DataFrame = pl.from_arrow(arrow_schema(table).empty_table())  # type: ignore[assignment]
        # Not scan_delta: it does not find the files of a folder whose name needs quoting.
        if files := self._lake.files(table):
            return pl.scan_parquet(
                files,
                hive_partitioning=False,
                glob=False,
                schema=empty.schema,
                missing_columns="insert",  # columns that are younger than a file
            )
        return empty.lazy()

    def query(
        self,
        name: str,
        run_id: str | None = None,
        *,
        other_run_id: str | None = None,
        tokens: str = "all",
        domains: Mapping[str, str] | None = None,
        exclude_template: bool = False,
        draws: int = 99,
        seed: int = 0,
        level: float = 0.95,
        requests: int | None = None,
        engine: str = "duckdb",
        master: str | None = None,
        **options: Any,
    ) -> MeasureResult:
        """A measure of a run, as ``tracer query`` takes it; its ``frame`` is a Polars frame.

        Args:
            name: of the measure.
            run_id: the run; None takes the only one.
            other_run_id: the second run, for measures that compare two.
            tokens: last-prompt, prompt, generated, or all.
            domains: new domain by old domain or subject.
            exclude_template: leaves out the tokens that all prompts begin and end with.
            draws: of chance, and as many of requests for intervals; 0 has neither.
            seed: of all draws and of the choice of requests.
            level: of intervals and bands, such as 0.95.
            requests: most requests to take; None takes all.
            engine: duckdb, polars or spark; the other two take no draws.
            master: of Spark; None runs it in this process.
            options: those of the measure, by name.

        Raises:
            InputError: see ``tracer.analysis.measures.run.run_measure``.
            UnknownRunError: no such run.
            DamagedDataError: a file of the lake is missing or broken.
        """
        settings = Settings(
            tokens=tokens,
            domains=domains,
            exclude_template=exclude_template,
            draws=draws,
            seed=seed,
            level=level,
            requests=requests,
        )
        return run_measure(
            self._lake,
            name,
            run_id=run_id,
            other_run_id=other_run_id,
            settings=settings,
            binds=options,
            engine=engine,
            master=master,
        )

    def audit(
        self,
        run_id: str | None = None,
        *,
        mode: str = "gate",
        tokens: str | None = None,
        min_presence: float = 0.8,
        rank_cutoff: int | None = None,
        domains: Mapping[str, str] | None = None,
        allow_missing_tokens: bool = False,
        draws: int = 0,
        seed: int = 0,
        same_token: bool = False,
        exclude_template: bool = False,
    ) -> Audit:
        """Standing committees of a run; see ``tracer.analysis.audit.audit``."""
        return audit(
            self._lake,
            run_id=run_id,
            mode=mode,
            tokens=tokens,
            min_presence=min_presence,
            rank_cutoff=rank_cutoff,
            domains=domains,
            allow_missing_tokens=allow_missing_tokens,
            draws=draws,
            seed=seed,
            same_token=same_token,
            exclude_template=exclude_template,
        )
