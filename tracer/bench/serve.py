"""What live capture costs the clients of a server: latency, throughput, compute time.

Two servers of one model stand side by side, one without the plugin's doing and one that records.
They take turns in random order, the second also with recording stopped. The compute time of a turn
has some seconds of rest in it, in which what was recorded gets into the lake.
"""

import json
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

from tracer.bench.floor import Floor, measure_floor
from tracer.bench.models import VOCABULARY, write_model
from tracer.bench.ratios import Ratio, paired_ratio
from tracer.bench.serve_load import Load, Turn, run_turn
from tracer.bench.serve_process import SERVED_NAME, ServeProcess, serving
from tracer.errors import EngineFailedError
from tracer.live.status import Control, Counts, read_status, write_control
from tracer.store.lake import Lake

__all__ = ["MODES", "QUANTITIES", "Measured", "ServeCost", "measure_serving"]

# off: no capture; stopped: hooks, and recording stopped; on: everything recorded
MODES = ("off", "stopped", "on")
QUANTITIES = ("ttft_s", "itl_s", "itl_p99_s", "tokens_per_s", "cpu_s")
_NAME = "bench"
_SEAL_SECONDS = 1.0
# After a turn, of every mode: vLLM spins for a while, and what was recorded is written.
_SETTLE_SECONDS = 3.0
_PATIENCE_SECONDS = 120.0
_SEED = 20_260
_FIRST_WORD = 3


@dataclass(frozen=True, slots=True)
class Measured:
    """One turn.

    ttft_s, itl_s: medians of the time to the first token and between tokens; itl_p99_s: of the
        latter what one in a hundred exceeds
    tokens_per_s: generated; cpu_s: compute time of the server, of all threads
    """

    ttft_s: float
    itl_s: float
    itl_p99_s: float
    tokens_per_s: float
    cpu_s: float


@dataclass(frozen=True, slots=True)
class ServeCost:
    """All turns by mode, pair by pair, and what was recorded.

    counts: what the recording server said in the end; floor: of its rows
    """

    load: Load
    turns: Mapping[str, list[Measured]]
    counts: Counts
    floor: Floor

    def ratio(self, quantity: str, mode: str) -> Ratio:
        """Of a quantity in a mode to that without capture."""
        above, below = (
            [getattr(turn, quantity) for turn in self.turns[name]] for name in (mode, "off")
        )
        return paired_ratio(above, below)

    def typical(self, quantity: str, mode: str) -> float:
        """Median over turns."""
        return float(median(getattr(turn, quantity) for turn in self.turns[mode]))

    def floor_ratio(self) -> float:
        """The ratio of compute time that recording at the floor would have."""
        return 1 + self.floor.cpu_s * self.load.num_tokens / self.typical("cpu_s", "off")


def measure_serving(
    size: str, pairs: int, load: Load, folder: Path, note: Callable[[str], None]
) -> ServeCost:
    """Start both servers and let them take turns.

    Args:
        size: of the model, see ``tracer.bench.models``.
        pairs: turns of each mode.
        load: of a turn.
        folder: empty, for model, lake and logs.
        note: told which stage begins.

    Raises:
        EngineFailedError: a server fails, or what it served is not in the lake.
    """
    model, lake, control = folder / "model", folder / "lake", folder / "control"
    write_model(size, model)
    settings = {
        "lake": str(lake),
        "control": str(control),
        "name": _NAME,
        "seal_seconds": _SEAL_SECONDS,
    }
    config = folder / "live.json"
    config.write_text(json.dumps(settings), encoding="utf-8")
    options = [
        "--enforce-eager", "--dtype", "float32", "--no-enable-prefix-caching",
        "--max-model-len", str(load.prompt_tokens + load.output_tokens + 1),
    ]  # fmt: skip
    environ = {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    note("starting the server without capture")
    with serving(model, options, folder / "off.log", environ) as plain:
        note("starting the server with capture")
        environ["TRACER_LIVE"] = str(config)
        with serving(model, options, folder / "on.log", environ) as live:
            bench = _Bench(plain, live, control, load)
            note("warming up")
            for mode in MODES:
                bench.turn(mode)
            turns: dict[str, list[Measured]] = {mode: [] for mode in MODES}
            rng = random.Random(_SEED)
            for pair in range(pairs):
                note(f"pair {pair + 1} of {pairs}")
                for mode in rng.sample(MODES, len(MODES)):
                    turns[mode].append(bench.turn(mode))
            counts = bench.status()
    if counts.dropped or counts.recorded != load.num_requests * (pairs + 1):
        raise EngineFailedError(
            "while serving", f"{counts.recorded} requests recorded, dropped {counts.dropped}"
        )
    (run,) = Lake.open(lake).runs()
    files = Lake.open(lake).files("routing", run["run_id"])
    return ServeCost(load, turns, counts, measure_floor(Path(files[-1]), run["num_experts"]))


class _Bench:
    def __init__(self, plain: ServeProcess, live: ServeProcess, control: Path, load: Load) -> None:
        self._plain, self._live = plain, live
        self._control = control
        self._load = load
        self._rng = random.Random(_SEED)
        self._commands = 0

    def turn(self, mode: str) -> Measured:
        """Run a turn in a mode."""
        server = self._plain if mode == "off" else self._live
        if mode != "off":
            self._command(recording=mode == "on")
        expected = self.status().recorded + self._load.num_requests
        words = self._rng.choices(
            range(_FIRST_WORD, VOCABULARY), k=self._load.num_requests * self._load.prompt_tokens
        )
        began = server.cpu_seconds()
        turn = run_turn(server.url, SERVED_NAME, self._load, words)
        time.sleep(_SETTLE_SECONDS)
        if mode == "on":
            self._wait(lambda status: status.recorded >= expected, "the lake")
        return _measured(turn, self._load, server.cpu_seconds() - began)

    def status(self) -> Counts:
        """What the recording server says."""
        counts = read_status(self._control)
        if counts is None:
            raise EngineFailedError("while serving", "it wrote no status")
        return counts

    def _command(self, *, recording: bool) -> None:
        self._commands += 1
        name = str(self._commands)
        write_control(self._control, Control(name, recording))
        self._wait(lambda status: status.control_id == name, "the command")

    def _wait(self, condition: Callable[[Counts], bool], what: str) -> None:
        until = time.monotonic() + _PATIENCE_SECONDS
        while not condition(status := self.status()):
            if time.monotonic() > until:
                raise EngineFailedError(
                    "while serving", f"waited in vain for {what}: {status.last_error}"
                )
            time.sleep(0.05)


def _measured(turn: Turn, load: Load, cpu_s: float) -> Measured:
    return Measured(
        median(turn.first),
        median(turn.between),
        quantiles(turn.between, n=100)[-1],
        load.num_requests * load.output_tokens / turn.seconds,
        cpu_s,
    )
