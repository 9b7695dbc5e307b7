"""``tracer capture`` under asynchronous scheduling, which vLLM turns off on CPUs.

Its V1 runner does run so there: ``v1/worker/cpu/shm.py`` has stand-ins for streams and events. The
setting is put back after the platform's check, and nothing else of vLLM is changed. Says at the
end how many rows the runner was given, so that rows scheduled past the end of a request show.

usage: capture_asynchronously.py OUTPUTS.json [tracer capture options]
"""

import runpy
import sys
from pathlib import Path

from vllm.platforms.cpu import CpuPlatform
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.worker.cpu_model_runner import CPUModelRunner

check = CpuPlatform.check_and_update_config
execute_model = CPUModelRunner.execute_model
schedule = AsyncScheduler.schedule
rows, scheduled = [0], [0]


def check_but_stay_asynchronous(config):
    check(config)
    config.scheduler_config.async_scheduling = True


def execute_and_count(self, scheduler_output, *args, **kwargs):
    rows[0] += scheduler_output.total_num_scheduled_tokens
    return execute_model(self, scheduler_output, *args, **kwargs)


def schedule_and_count(self, *args, **kwargs):
    scheduled[0] += 1
    return schedule(self, *args, **kwargs)


CpuPlatform.check_and_update_config = staticmethod(check_but_stay_asynchronous)
CPUModelRunner.execute_model = execute_and_count
AsyncScheduler.schedule = schedule_and_count
try:
    runpy.run_path(str(Path(__file__).with_name("capture_keeping_outputs.py")), run_name="__main__")
finally:
    print(f"{rows[0]} rows, {scheduled[0]} asynchronous schedules", file=sys.stderr)
