"""Clients of a server: streamed completions, with the time of every piece."""

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import httpx

from tracer.errors import EngineFailedError

__all__ = ["Load", "Turn", "run_turn"]

_TIMEOUT_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Load:
    """What a turn asks.

    clients: at a time; requests: of each client, one after the other
    prompt_tokens, output_tokens: of each request
    """

    clients: int
    requests: int
    prompt_tokens: int
    output_tokens: int

    @property
    def num_requests(self) -> int:
        """Of a turn."""
        return self.clients * self.requests

    @property
    def num_tokens(self) -> int:
        """Forwarded in a turn: the last one of a request never is."""
        return self.num_requests * (self.prompt_tokens + self.output_tokens - 1)


@dataclass(slots=True)
class Turn:
    """What the clients saw, in seconds.

    first: until the first token of each request; between: until each further one
    """

    seconds: float = 0.0
    first: list[float] = field(default_factory=list)
    between: list[float] = field(default_factory=list)


def run_turn(url: str, model: str, load: Load, words: Sequence[int]) -> Turn:
    """Run one turn; every request has a prompt of its own, so that no cache answers.

    Args:
        url: of the server, without a path.
        model: its name there.
        load: what to ask.
        words: token ids to draw prompts from; the turn's own number decides.

    Raises:
        EngineFailedError: the server does not answer as it should.
    """
    try:
        return asyncio.run(_turn(url, model, load, words))
    except (httpx.HTTPError, json.JSONDecodeError, KeyError) as error:
        raise EngineFailedError("while serving", f"{type(error).__name__}: {error}") from error


async def _turn(url: str, model: str, load: Load, words: Sequence[int]) -> Turn:
    turn = Turn()
    prompts = [
        list(words[n * load.prompt_tokens : (n + 1) * load.prompt_tokens])
        for n in range(load.num_requests)
    ]
    async with httpx.AsyncClient(base_url=url, timeout=_TIMEOUT_SECONDS) as client:

        async def work(number: int) -> None:
            for prompt in prompts[number :: load.clients]:
                await _ask(client, model, prompt, load.output_tokens, turn)

        began = time.perf_counter()
        await asyncio.gather(*(work(number) for number in range(load.clients)))
        turn.seconds = time.perf_counter() - began
    return turn


async def _ask(
    client: httpx.AsyncClient, model: str, prompt: Sequence[int], output_tokens: int, turn: Turn
) -> None:
    body = {
        "model": model,
        "prompt": prompt,
        "max_tokens": output_tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
    }
    last = time.perf_counter()
    is_first = True
    async with client.stream("POST", "/v1/completions", json=body) as answer:
        answer.raise_for_status()
        async for line in answer.aiter_lines():
            if not line.startswith("data: ") or line == "data: [DONE]":
                continue
            json.loads(line.removeprefix("data: "))["choices"]
            now = time.perf_counter()
            (turn.first if is_first else turn.between).append(now - last)
            last, is_first = now, False
