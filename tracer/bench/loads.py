"""The work an engine is given, and the loop that drives it: the same for every mode."""

import gc
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tracer.bench.models import VOCABULARY
from tracer.capture.engine import Engine

__all__ = ["LOADS", "Finished", "Load", "Spent", "Stopwatch", "run_load"]

_FIRST_WORD = 3


@dataclass(frozen=True, slots=True)
class Load:
    """Requests of one shape, run together.

    Lengths in tokens; ``generated`` includes the last sampled one.
    """

    name: str
    num_prompts: int
    prompt: int
    generated: int

    @property
    def num_tokens(self) -> int:
        """Tokens forwarded in a turn, so routed: all but the last sampled one of each request."""
        return self.num_prompts * (self.prompt + self.generated - 1)

    def prompts(self, pair: int) -> list[list[int]]:
        """Random token ids, seeded by the pair: modes share them, pairs do not.

        A batch holds many pairs, and what repeats itself would be stored too easily.
        """
        rng = np.random.default_rng([self.num_prompts, self.prompt, pair])
        shape = (self.num_prompts, self.prompt)
        prompts: list[list[int]] = rng.integers(_FIRST_WORD, VOCABULARY, shape).tolist()
        return prompts


# By model size. A turn takes a quarter or half a second: on a shared machine turns of 0.2 s
# differ as much as turns of 1 s do, so many short ones tell more in the same time.
LOADS = {
    "mid": (Load("prefill", 1, 128, 1), Load("decode", 16, 8, 4)),
    "tiny": (Load("prefill", 16, 256, 1), Load("decode", 32, 16, 8)),
}


@dataclass(frozen=True, slots=True)
class Spent:
    """Seconds: of this process's compute on all threads, and on the clock."""

    cpu: float
    wall: float

    def __add__(self, other: "Spent") -> "Spent":
        return Spent(self.cpu + other.cpu, self.wall + other.wall)

    def share(self, part: float) -> "Spent":
        """``part`` (0 to 1) of both."""
        return Spent(self.cpu * part, self.wall * part)


class Stopwatch:
    """Time since it was made."""

    def __init__(self) -> None:
        gc.collect()  # of what others left
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def read(self) -> Spent:
        """Time until now."""
        return Spent(time.process_time() - self._cpu, time.perf_counter() - self._wall)


@dataclass(frozen=True, slots=True)
class Finished:
    """A request the engine returned.

    engine_id: the id the worker knows it by; token_ids: prompt and generated tokens
    native_ids: what vLLM's own recorder returned, None where it did not record
    """

    engine_id: str
    num_prompt_tokens: int
    token_ids: Sequence[int]
    native_ids: Any


def run_load(engine: Engine, load: Load, pair: int, prefix: str) -> list[Finished]:
    """Run all requests of a load to their end; ``prefix`` sets their ids apart."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    params = SamplingParams(
        temperature=0.0,
        max_tokens=load.generated,
        ignore_eos=True,
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )
    running = {}
    for number, prompt in enumerate(load.prompts(pair)):
        name = f"{prefix}-{load.name}-{number}"
        running[name] = (engine.add(name, prompt, params), prompt)
    finished = []
    while running:
        for output in engine.step():
            engine_id, prompt = running.pop(output.request_id)
            completion = output.outputs[0]
            finished.append(
                Finished(
                    engine_id,
                    len(prompt),
                    [*prompt, *completion.token_ids],
                    getattr(completion, "routed_experts", None),
                )
            )
    return finished
