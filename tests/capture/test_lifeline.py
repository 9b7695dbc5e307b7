"""Processes of an engine end with the one that captures, though nobody tells them."""

import signal
import subprocess
import sys

import psutil

CHAIN = """
import subprocess, sys, time
from tracer.capture.lifeline import end_with
below, driver = int(sys.argv[1]), int(sys.argv[2])
if below:
    subprocess.Popen([sys.executable, "-c", sys.argv[3], str(below - 1), *sys.argv[2:]])
else:
    end_with(driver)
    print("ready", flush=True)
time.sleep(60)
"""


def test_the_engine_core_and_its_worker_end_with_a_killed_driver():
    start = (
        "import os, subprocess, sys, time;"
        "subprocess.Popen([sys.executable, '-c', sys.argv[1], '1', str(os.getpid()), sys.argv[1]]);"
        "time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", start, CHAIN], stdout=subprocess.PIPE, text=True
    ) as driver:
        assert driver.stdout.readline() == "ready\n"
        core, worker = psutil.Process(driver.pid).children(recursive=True)
        driver.send_signal(signal.SIGKILL)
        _, alive = psutil.wait_procs([core, worker], timeout=20)
    assert not [one for one in alive if one.status() != psutil.STATUS_ZOMBIE]


def test_a_driver_does_not_watch_itself():
    code = (
        "import os, threading; from tracer.capture.lifeline import end_with;"
        "end_with(os.getpid()); print(threading.active_count())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"
