"""The real thing: `vllm serve`, an OpenAI client, the lake. One server for the whole file."""

import asyncio
import contextlib
import json
import subprocess
import sys
import time

import pytest

pytestmark = [pytest.mark.engine, pytest.mark.serve]
openai = pytest.importorskip("openai", reason="needs vLLM: make setup")

from tests.live.server import MODEL_NAME, Server  # noqa: E402
from tracer.demo.checkpoint import write_demo_model  # noqa: E402
from tracer.live.config import LiveConfig  # noqa: E402
from tracer.live.runs import LiveRuns  # noqa: E402
from tracer.store.lake import Lake  # noqa: E402

TOKENS = 12
MARGIN = 0.01  # of gate weights, which are stored with bfloat16 precision


def dataset(repository):
    lines = (repository / "tracer/datasets/prompts/demo.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines[::6]]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "planted"
    write_demo_model(folder)
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory, model):
    settings = {
        "name": "web",
        "seal_seconds": 1,
        "run_hours": 24,
        "labels": ["tenant"],
        "label_rates": {"tenant": {"quiet": 0}},
        "queue_mb": 64,
    }
    running = Server(tmp_path_factory.mktemp("server"), model, settings)
    try:
        running.wait_until_up()
        yield running
    finally:
        running.close()


@pytest.fixture
def client(server):
    return openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


def ask(client, prompt, domain=None, tenant=None, capture=None, **options):
    """A completion; the extra arguments are what a user would send."""
    wishes = {"tracer_domain": domain, "tracer_label_tenant": tenant, "tracer_capture": capture}
    extra = {name: value for name, value in wishes.items() if value is not None}
    options = {"max_tokens": TOKENS, "temperature": 0, **options}
    return client.completions.create(
        model=MODEL_NAME, prompt=prompt, extra_body={"vllm_xargs": extra}, **options
    )


async def closing(client, work):
    """What the work answers; the client's connections end with the loop they belong to."""
    async with client:
        return await work


async def text_of(stream, pieces=None):
    """What a stream says; after so many pieces it is broken off."""
    texts = []
    async for chunk in stream:
        texts.append(chunk.choices[0].text)
        if pieces is not None and len(texts) == pieces:
            await stream.close()
            break
    return "".join(texts)


def requests_of(lake):
    """Rows of `requests` by the id that the client got (with its number, for one of several)."""
    columns = ["run_id", "request_id", "domain", "labels", "status", "finish_reason"]
    columns += ["num_prompt_tokens", "num_generated_tokens", "cached_prefix_tokens"]
    return [
        {**row, "labels": dict(row["labels"])}
        for run in lake.runs()
        for row in lake.rows("requests", run["run_id"], columns).to_pylist()
    ]


def sequences(lake, run_id):
    """Token ids by request, in order."""
    found = {}
    rows = lake.rows("tokens", run_id, ["request_id", "position", "token_id"]).to_pylist()
    for row in sorted(rows, key=lambda row: (row["request_id"], row["position"])):
        found.setdefault(row["request_id"], []).append(row["token_id"])
    return {name: tuple(tokens) for name, tokens in found.items()}


def routing_by_sequence(lake, run_id, wanted):
    """(tokens, position, layer, phase) -> (expert ids, gate weights)."""
    columns = ["request_id", "position", "layer_id", "phase", "expert_ids", "gate_weights"]
    tokens = sequences(lake, run_id)
    return {
        (tokens[row["request_id"]], row["position"], row["layer_id"], row["phase"]): (
            row["expert_ids"],
            row["gate_weights"],
        )
        for row in lake.rows("routing", run_id, columns).to_pylist()
        if row["request_id"] in wanted
    }


def the_one(rows, client_id):
    (row,) = [row for row in rows if client_id in row["request_id"]]
    return row


def test_concurrent_clients_leave_the_rows_of_an_offline_capture(
    server, client, model, repository, tmp_path
):
    prompts = dataset(repository)

    async def everyone():
        whole = [
            ask(client, row["prompt"], row["domain"], f"t{number % 3}")
            for number, row in enumerate(prompts[::2])
        ]
        streams = await asyncio.gather(
            *[ask(client, row["prompt"], row["domain"], stream=True) for row in prompts[1::2]]
        )
        return await asyncio.gather(*whole, *map(text_of, streams))

    before = server.status()
    answers = asyncio.run(closing(client, everyone()))
    count = len(prompts)
    status = server.wait_for(lambda status: status["recorded"] >= before["recorded"] + count)
    assert status["dropped"] == before["dropped"] == {}
    lake = server.copy_lake()
    rows = requests_of(lake)
    assert {row["domain"] for row in rows} == {row["domain"] for row in prompts}
    for number, answer in enumerate(answers[: len(prompts[::2])]):
        row = the_one(rows, answer.id)
        assert row["labels"] == {"tenant": f"t{number % 3}"}
        assert row["status"] == "complete"
        assert row["num_prompt_tokens"] == answer.usage.prompt_tokens
        assert row["num_generated_tokens"] == answer.usage.completion_tokens
        assert row["finish_reason"] == answer.choices[0].finish_reason
    (tmp_path / "prompts.jsonl").write_text("\n".join(map(json.dumps, prompts)))
    done = subprocess.run(
        [
            sys.executable, "-m", "tracer", "capture", "--model", model, "--dataset",
            "prompts.jsonl", "--lake", "offline", "--run-id", "off", "--max-tokens", str(TOKENS),
            "--enforce-eager", "--max-model-len", "256", "--dtype", "float32",
        ],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=400,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    offline = Lake.open(tmp_path / "offline")
    wanted = {row["request_id"] for row in rows if row["status"] == "complete"}
    live = routing_by_sequence(lake, rows[0]["run_id"], wanted)
    expected = routing_by_sequence(offline, "off", set(offline.request_status("off")))
    assert len(sequences(offline, "off")) == count
    assert set(live) == set(expected)
    for key, (ids, weights) in expected.items():
        assert live[key][0] == ids
        assert live[key][1] == pytest.approx(weights, rel=MARGIN)


def test_broken_streams_stop_texts_samples_and_wishes(server, client):
    async def everyone():
        base = "The parliament debated the law"
        stopped = (await ask(client, base, tenant="free")).choices[0].text.split()[2]
        broken = await ask(client, base, stream=True, max_tokens=200)
        await text_of(broken, pieces=4)
        return await asyncio.gather(
            ask(client, base, stop=[stopped]),
            ask(client, base, n=3, temperature=1.0),
            ask(client, base, capture="0"),
            ask(client, base, tenant="quiet"),
            ask(client, base, extra_query={"q": "1"}, logprobs=2),
        )

    before = server.status()
    stop, samples, declined, quiet, plain = asyncio.run(closing(client, everyone()))
    status = server.wait_for(lambda status: status["recorded"] >= before["recorded"] + 6)
    left_out = status["left_out"]
    assert left_out["declined"] - before["left_out"].get("declined", 0) == 1
    assert left_out["rate"] - before["left_out"].get("rate", 0) == 1
    rows = requests_of(server.copy_lake())
    ended = the_one(rows, stop.id)
    assert (ended["status"], ended["finish_reason"]) == ("complete", "stop")
    assert ended["num_generated_tokens"] == stop.usage.completion_tokens
    assert len([row for row in rows if samples.id in row["request_id"]]) == 3
    assert not [row for row in rows if declined.id in row["request_id"]]
    assert not [row for row in rows if quiet.id in row["request_id"]]
    assert the_one(rows, plain.id)["status"] == "complete"
    (aborted,) = [row for row in rows if row["status"] == "aborted"]
    assert 4 <= aborted["num_generated_tokens"] < 200
    lake = server.copy_lake()
    assert aborted["request_id"] not in sequences(lake, aborted["run_id"])


def test_cached_prefixes_are_counted(server, client):
    prefix = [3 + number % 97 for number in range(200)]  # more than a block of a CPU's cache

    async def one_after_the_other():
        first = await ask(client, [*prefix, 5, 6], domain="twice")
        return first, await ask(client, [*prefix, 7, 8], domain="twice")

    before = server.status()
    answers = asyncio.run(closing(client, one_after_the_other()))
    server.wait_for(lambda status: status["recorded"] >= before["recorded"] + 2)
    lake = server.copy_lake()
    rows = requests_of(lake)
    first, second = (the_one(rows, answer.id) for answer in answers)
    assert second["cached_prefix_tokens"] > first["cached_prefix_tokens"] == 0
    columns = ["request_id", "position"]
    positions = {
        row["position"]
        for row in lake.rows("routing", second["run_id"], columns).to_pylist()
        if row["request_id"] == second["request_id"]
    }
    length = second["num_prompt_tokens"] + second["num_generated_tokens"] - 1
    assert positions == set(range(second["cached_prefix_tokens"], length))


def test_structured_outputs_are_recorded(server, client):
    async def choose():
        return await client.completions.create(
            model=MODEL_NAME,
            prompt="yes or no",
            max_tokens=16,
            extra_body={"structured_outputs": {"choice": ["law", "court"]}},
        )

    before = server.status()
    answer = asyncio.run(closing(client, choose()))
    assert answer.choices[0].text in {"law", "court"}
    server.wait_for(lambda status: status["recorded"] > before["recorded"])
    row = the_one(requests_of(server.copy_lake()), answer.id)
    # The grammar ends it, by a token that stops: not the most tokens, nor the client.
    assert (row["status"], row["finish_reason"]) == ("complete", "stop")


def test_a_full_disk_does_not_stop_serving(server, client):
    filler = server.disk / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(1 << 12))
    before = server.status()

    async def several():
        asked = [ask(client, "The court of law", "full") for _ in range(6)]
        answers = await asyncio.gather(*asked)
        status = await asyncio.to_thread(
            server.wait_for, lambda status: "space" in (status["last_error"] or "")
        )
        asked = [ask(client, "The court of law", "full") for _ in range(6)]
        return [*answers, *await asyncio.gather(*asked)], status

    began = time.monotonic()
    answers, status = asyncio.run(closing(client, several()))
    assert [len(answer.choices) for answer in answers] == [1] * 12
    assert time.monotonic() - began < 120
    assert server.status()["recorded"] == before["recorded"]
    assert status["recording"]
    filler.unlink()
    status = server.wait_for(lambda status: status["recorded"] >= before["recorded"] + 12, 90)
    assert sum(status["dropped"].values()) == sum(before["dropped"].values())
    rows = requests_of(server.copy_lake())
    assert len([row for row in rows if row["domain"] == "full"]) == 12


def test_a_killed_server_loses_its_unsealed_tail_only(server, client):
    before = server.status()

    async def some():
        sealed = [await ask(client, "The court", "before") for _ in range(3)]
        await asyncio.to_thread(
            server.wait_for, lambda status: status["recorded"] >= before["recorded"] + 3
        )
        await ask(client, "The tail", "tail")
        return sealed

    sealed = asyncio.run(closing(client, some()))
    server.kill()
    lake = server.copy_lake()
    # What the next start of a server does first.
    config = LiveConfig(lake=lake.location, name="web")
    (run_id,) = LiveRuns(config, {}, {}, dict).finish_cut_off(lake)
    assert lake.run(run_id)["status"] == "cut_off"
    rows = requests_of(lake)
    assert all(the_one(rows, answer.id)["status"] == "complete" for answer in sealed)
    assert len([row for row in rows if row["domain"] == "tail"]) <= 1
    done = subprocess.run(
        [sys.executable, "-m", "tracer", "verify", "--lake", lake.location],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
