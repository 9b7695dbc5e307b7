"""A lake of several small batches: ``python -m tests.readers.make_lake FOLDER LAKE``."""

import sys
from pathlib import Path

from tracer.store import run_writer
from tracer.store.interchange import import_run


def main(folder, lake):
    run_writer.SHARD_CHOICES = 20_000
    files = {name: folder / f"{name}.parquet" for name in ("routing", "requests")}
    import_run(lake, **files, run=folder / "run.json", run_id="r")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
