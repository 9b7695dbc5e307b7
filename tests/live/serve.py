"""`vllm serve` that ends with whoever started it: when the pipe on stdin closes."""

import os
import signal
import sys
import threading

from tracer.bench.vllm_command import main


def end_with_starter():
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=end_with_starter, daemon=True).start()
    main()
