"""Imports vLLM once, then runs each request in a fork: a real process without the import time.

Reads JSON lines {"code": ..., "argv": [...], "cwd": ..., "env": ..., "stdout": ..., "stderr": ...}
from standard input; answers each with {"exit_code": ...}. ``code`` is a Python file that is run
with ``argv``, or null for the ``tracer`` command line itself.
"""

import json
import os
import runpy
import sys
import traceback

import torch
import vllm
import vllm.engine.arg_utils
import vllm.v1.engine.llm_engine  # noqa: F401


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


def main():
    torch.set_num_threads(1)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        job = json.loads(line)
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
        _, status = os.waitpid(pid, 0)
        print(json.dumps({"exit_code": os.waitstatus_to_exitcode(status)}), flush=True)


main()
