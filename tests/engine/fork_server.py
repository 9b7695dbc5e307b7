"""Imports vLLM once, then runs each request in a fork: a real process without the import time.

Reads JSON lines from standard input. {"code": ..., "argv": [...], "cwd": ..., "env": ...,
"stdout": ..., "stderr": ...} starts a process and is answered with {"pid": ...}: ``code`` is a
Python file that is run with ``argv``, or null for the ``tracer`` command line itself. {"poll": pid}
is answered with {"exit_code": ...}: null while it runs, negative if a signal ended it.
"""

import gc
import importlib
import json
import os
import runpy
import sys
import traceback

IMPORTED = (
    "vllm.engine.arg_utils",
    "vllm.v1.engine.llm_engine",
    "vllm.v1.engine.core",
    "vllm.v1.executor.multiproc_executor",
    "tracer.store.compiled",  # numba, in a state that vLLM can look through
)


def child(job):
    for stream, number in (("stdout", 1), ("stderr", 2)):
        os.dup2(os.open(job[stream], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.chdir(job["cwd"])
    os.environ.update(job["env"])
    if job["code"]:
        sys.argv = [job["code"], *job["argv"]]
        runpy.run_path(job["code"], run_name="__main__")
        return 0
    from tracer.cli import run

    return run(job["argv"])


def start(job):
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            code = child(job)
        except SystemExit as leaving:
            code = leaving.code if isinstance(leaving.code, int) else 1
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    return pid


def poll(pid):
    ended, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if ended else None


def import_all():
    """What an engine needs, as long as it starts no thread: threads do not live on in a fork."""
    import torch
    from vllm.platforms import current_platform

    torch.set_num_threads(1)
    for name in IMPORTED:
        importlib.import_module(name)
    if current_platform.is_cpu():
        importlib.import_module("vllm.v1.worker.cpu_worker")
    # A fork that looks for garbage would otherwise copy all of this.
    gc.collect()
    gc.freeze()


def main():
    import_all()
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        answer = {"exit_code": poll(job["poll"])} if "poll" in job else {"pid": start(job)}
        print(json.dumps(answer), flush=True)


# Guarded: an engine core in a process of its own imports the file again.
if __name__ == "__main__":
    main()
