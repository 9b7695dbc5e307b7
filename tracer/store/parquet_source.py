"""Parquet files opened by their location: a path, or an ``s3://`` URL."""

import os
from collections.abc import Sequence
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.fs as pa_fs
import pyarrow.parquet as pq

__all__ = ["arrow_source", "is_outage", "open_parquet", "read_footer", "read_parquet"]


def is_outage(error: Exception) -> bool:
    """Whether a server did not answer or refused, so that nothing is known of the object."""
    if not isinstance(error, OSError) or isinstance(error, FileNotFoundError):
        return False
    # As pyarrow, delta-rs and ``S3Storage`` tell it.
    return any(words in str(error) for words in ("AWS Error", "Generic S3 error", "s3://"))


def open_parquet(location: str, **options: Any) -> pq.ParquetFile:
    """A file, to be closed; options as ``pyarrow.parquet.ParquetFile`` has them."""
    path, filesystem = arrow_source(location)
    return pq.ParquetFile(path, filesystem=filesystem, **options)


def read_footer(location: str) -> pq.FileMetaData:
    """What the file says of itself."""
    path, filesystem = arrow_source(location)
    return pq.read_metadata(path, filesystem=filesystem)


def read_parquet(
    location: str, columns: Sequence[str] | None = None, filters: Any = None
) -> pa.Table:
    """Rows of one file; names of folders above it mean nothing."""
    path, filesystem = arrow_source(location)
    return pq.read_table(
        path,
        columns=None if columns is None else list(columns),
        filters=filters,
        partitioning=None,
        filesystem=filesystem,
    )


def arrow_source(location: str) -> tuple[str, pa_fs.FileSystem]:
    """(path, file system) as pyarrow has them."""
    if location.startswith("s3://"):
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        return location.removeprefix("s3://"), _s3(os.environ.get("AWS_ENDPOINT_URL"), region)
    return location, _local()


@cache
def _local() -> pa_fs.FileSystem:
    return pa_fs.LocalFileSystem()


@cache
def _s3(endpoint: str | None, region: str | None) -> pa_fs.FileSystem:
    """The server that ``tracer.store.s3_storage`` finds; keys come from the environment."""
    from tracer.store.s3_storage import request_timeout

    options: dict[str, Any] = {}
    if endpoint:
        url = urlsplit(endpoint)
        options = {"scheme": url.scheme, "endpoint_override": url.netloc}
    return pa_fs.S3FileSystem(
        region=region,
        connect_timeout=10,
        request_timeout=request_timeout(),
        retry_strategy=pa_fs.AwsStandardS3RetryStrategy(max_attempts=10),
        **options,
    )
