"""Measures on a standalone Spark: a master and two workers, processes of their own on loopback.

`make test-spark` runs some, with `ALL=1` all of the catalogue; results are those of DuckDB to
1e-9. `test_spark_measures.py` has every measure in one process.
"""

import ctypes
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pyspark
import pytest
from pyspark.sql import SparkSession

from tests.analysis.conftest import make_lake  # noqa: F401 - a fixture
from tests.analysis.measures.conftest import together  # noqa: F401 - a fixture
from tests.readers.test_spark_measures import SMALL, both, plain, same, two_runs  # noqa: F401
from tracer.analysis.measures.catalogue import measure_named, measure_names
from tracer.analysis.measures.run import Settings, run_measure
from tracer.store.lake import Lake

# Of sums, of rows, of requests beside each other, of two runs.
CHOSEN = [
    "committee_coverage",
    "domain_overlap",
    "expert_drift",
    "expert_load",
]
NAMES = measure_names() if os.environ.get("TRACER_ALL_MEASURES") else CHOSEN
JAVA = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"


def ends_with_us():
    """A process that outlived these tests would hold its port and memory."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def spark_process(log, *words):
    script = Path(pyspark.__file__).parent / "bin" / "spark-class"
    environment = {
        **os.environ,
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_DAEMON_MEMORY": "256m",
        "SPARK_DAEMON_JAVA_OPTS": JAVA,
        "SPARK_WORKER_DIR": str(log.parent / "work"),
    }
    with log.open("w") as out:
        return subprocess.Popen(
            [str(script), *words],
            stdout=out,
            stderr=subprocess.STDOUT,
            env=environment,
            preexec_fn=ends_with_us,  # noqa: PLW1509 - no thread of ours runs
        )


def told(log, process, pattern, count=1, timeout=120):
    """The ``count``-th match in a log, once it is there."""
    deadline = time.monotonic() + timeout
    while len(found := re.findall(pattern, log.read_text())) < count:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)
    return found[count - 1]


@pytest.fixture(scope="module")
def master(tmp_path_factory):
    """URL of a master that two workers of one core each have registered with."""
    folder = tmp_path_factory.mktemp("spark")
    log = folder / "master.log"
    name = "org.apache.spark.deploy"
    processes = [
        spark_process(log, f"{name}.master.Master", "-h", "127.0.0.1", "-p", "0",
                      "--webui-port", "0")
    ]  # fmt: skip
    try:
        url = told(log, processes[0], r"Starting Spark master at (spark://\S+)")
        processes += [
            spark_process(folder / f"worker{number}.log", f"{name}.worker.Worker", "-h",
                          "127.0.0.1", "-c", "1", "-m", "700m", "--webui-port", "0", url)
            for number in range(2)
        ]  # fmt: skip
        told(log, processes[0], r"Registering worker \S+ with 1 cores", count=2)
        yield url
    finally:
        for process in processes:
            process.kill()
            process.wait()


CONF = {
    "spark.executor.memory": "600m",
    "spark.executor.extraJavaOptions": JAVA,
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.sql.shuffle.partitions": "2",
    "spark.sql.adaptive.enabled": "false",
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
}


def test_the_command_on_a_lake_of_several_files(master, tmp_path):
    """`tracer query --engine spark --master`, both workers at it, the settings in Spark's file."""
    (tmp_path / "spark-defaults.conf").write_text(
        "".join(f"{name} {value}\n" for name, value in CONF.items())
    )
    words = [
        "query", "expert_load", "--lake", os.environ["TRACER_READERS_LAKE"], "--run", "r",
        "--draws", "0", "--format", "json",
    ]  # fmt: skip
    environment = {**os.environ, "SPARK_CONF_DIR": str(tmp_path)}
    found = [
        subprocess.run(
            [sys.executable, "-m", "tracer", *words, *more],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        for more in ([], ["--engine", "spark", "--master", master])
    ]
    assert [one.returncode for one in found] == [0, 0], found[1].stderr
    expected, rows = (pl.DataFrame(json.loads(one.stdout)) for one in found)
    assert rows.height > 1000
    same(rows, expected, list(measure_named("expert_load").key))


@pytest.fixture(scope="module")
def session(master):
    builder = SparkSession.builder.master(master).config("spark.ui.enabled", "false")
    for name, value in CONF.items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    yield spark
    spark.stop()


def test_both_workers_run_tasks(session):
    """Executors by the address they work at; the driver is none of them."""
    deadline = time.monotonic() + 60
    while (status := session.sparkContext._jsc.sc().getExecutorMemoryStatus()).size() < 3:
        assert time.monotonic() < deadline, status
        time.sleep(0.2)
    ran = session.sparkContext.parallelize(range(8), 8).count()
    assert ran == 8


@pytest.mark.parametrize("name", NAMES)
def test_a_measure(session, two_runs, name):  # noqa: F811
    other = "r2" if measure_named(name).compares else None
    both(two_runs, name, "all", run_id="r1", other_run_id=other, binds=SMALL.get(name))


def test_a_measure_of_a_real_lake(session):
    lake = Lake.open(os.environ["TRACER_READERS_LAKE"])
    settings = Settings(tokens="all", draws=0)
    expected = run_measure(lake, "committee_coverage", settings=settings).frame
    found = run_measure(lake, "committee_coverage", settings=settings, engine="spark").frame
    assert plain(found).height > 0
    same(found, expected, list(measure_named("committee_coverage").key))
