"""Columns of Parquet files from outside: names that are no text end in one clear error."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tracer.errors import InputError
from tracer.store.limited_parquet import read_columns


@pytest.mark.parametrize("needed", ["position", "zzzzzzzz"])
def test_a_column_name_that_is_no_text(tmp_path, needed):
    """A byte that begins no letter, in the footer and the pages of a column that is not needed."""
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"position": [0, 1], "zzzzzzzz": [2, 3]}), path, store_schema=False)
    whole = path.read_bytes()
    assert whole.count(b"zzzzzzzz") >= 2
    path.write_bytes(whole.replace(b"zzzzzzzz", b"zz\x80zzzzz"))
    with pytest.raises(InputError, match=r"rows\.parquet"):
        read_columns(path, {needed: pa.int64()})
