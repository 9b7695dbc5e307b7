"""Folders whose names need quoting somewhere: in URLs, in SQL, in globs."""

import polars as pl
import pytest

from tests.store.conftest import make_rows, request_row, run_row
from tracer.api import open_lake
from tracer.errors import InputError
from tracer.store.lake import Lake
from tracer.store.run_writer import writing_run
from tracer.store.shard import ShardWriter


@pytest.mark.parametrize("name", ["my lake", "a#b", "é'q", "x?y", "star*", 'q"uote', "a=b", "c:d"])
def test_any_folder_can_be_a_lake(tmp_path, name):
    lake = Lake.create(tmp_path / name)
    for run_id in ("r", "s"):
        with writing_run(lake, run_row(run_id)) as target:
            writer = ShardWriter(lake.storage, run_id, num_experts=4, precision="f32")
            target.commit(0, writer.write("000000-w0", make_rows("a")), [request_row("a")])
    assert [path.name for path in tmp_path.iterdir()] == [name]
    opened = open_lake(tmp_path / name)
    assert opened.sql("select count(*) from choices").fetchall() == [(24,)]
    assert opened.scan("routing").collect().height == 12
    assert [row["status"] for row in opened.runs()] == ["complete", "complete"]


@pytest.mark.parametrize("name", ["p%20q", "br[a]ck", "tab\there", "back\\slash"])
def test_a_folder_delta_cannot_work_in_is_refused(tmp_path, name):
    for use in (Lake.create, Lake.open):
        with pytest.raises(InputError, match="cannot be a lake"):
            use(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_scan_of_an_empty_table_has_its_columns(tmp_path):
    Lake.create(tmp_path / "lake")
    frame = open_lake(tmp_path / "lake").scan("routing").collect()
    assert frame.height == 0
    assert frame.schema["expert_ids"] == pl.List(pl.Int16)
