"""Control of a real `vllm serve`: what headers and bodies say, start and stop, /metrics, ports."""

import json
import subprocess
import sys
import time

import pytest

pytest.importorskip("prometheus_client", reason="comes with vLLM: make setup")
from prometheus_client.parser import text_string_to_metric_families

from tests.live.conftest import serving

pytestmark = [pytest.mark.engine, pytest.mark.serve]

MIDDLEWARE = "tracer.live.middleware.LabelHeaders"
TENANT = "acme-tenant-7"
USER = "user-4711"
TEMPLATE = "{% for message in messages %}{{ message['content'] }} {% endfor %}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("controls")


@pytest.fixture(scope="module")
def server(folder, served_model):
    (folder / "key").write_bytes(b"a key of more than sixteen bytes\n")
    (folder / "chat.jinja").write_text(TEMPLATE)
    (folder / "live.yaml").write_text(
        json.dumps(
            {
                "lake": "lake",
                "labels": ["tenant", "user", "team"],
                "hash_labels": ["tenant", "user"],
                "hash_key_file": "key",
                "label_rates": {"domain": {"never": 0}},
                "seal_seconds": 1,
            }
        )
    )
    with serving(
        served_model,
        folder,
        "--middleware",
        MIDDLEWARE,
        "--chat-template",
        str(folder / "chat.jinja"),
        env={"TRACER_LIVE": str(folder / "live.yaml")},
        control=folder / "lake" / "_tracer" / "live" / "live",
    ) as running:
        yield running


def tracer(server, *words):
    done = subprocess.run(
        [sys.executable, "-m", "tracer", "live", *words, "--control", str(server.control)],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def settled(server):
    """A status of after this call in which nothing is on its way."""
    now = time.time()
    return server.wait_for(lambda counts: counts.updated_at > now and not counts.pending)


def rows(server):
    """Requests in the lake: id -> (domain, labels)."""
    from tracer import open_lake

    settled(server)
    lake = open_lake(server.control.parents[2])
    found = lake.sql("SELECT request_id, domain, labels, status FROM requests").fetchall()
    assert {status for *_, status in found} == {"complete"}
    return {name: (domain, dict(labels)) for name, domain, labels, _ in found}


def row_of(server, answer):
    """The row of the request that was answered; vLLM adds to its id."""
    (found,) = [row for name, row in rows(server).items() if answer["id"] in name]
    return found


def test_headers_and_xargs_arrive_as_labels(server):
    by_header = server.complete(
        headers={"x-tracer-domain": "maths", "x-tracer-label-team": "red", "x-other": "1"}
    )
    by_body = server.complete(
        vllm_xargs={"tracer_domain": "law", "tracer_label_team": "blue", "session_id": "s"}
    )
    chat = {"model": server.model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3}
    status, by_chat = server.post(
        "/v1/chat/completions",
        {**chat, "vllm_xargs": {"tracer_label_team": "blue", "tracer_domain": "chat"}},
        {"x-tracer-label-team": "green"},
    )
    assert status == 200
    assert row_of(server, by_header) == ("maths", {"team": "red"})
    assert row_of(server, by_body) == ("law", {"team": "blue"})
    assert row_of(server, by_chat) == ("chat", {"team": "green"})
    assert row_of(server, server.complete()) == ("none", {})


def test_a_no_is_respected_wherever_it_stands(server):
    before = settled(server)
    for told in (
        {"headers": {"x-tracer-capture": "0"}},
        {"vllm_xargs": {"tracer_capture": 0}},
        {"vllm_xargs": {"tracer_capture": "false"}},
        {"vllm_xargs": {"tracer_capture": False}},
        {"headers": {"x-tracer-capture": "no"}, "vllm_xargs": {"tracer_capture": 1}},
    ):
        server.complete(**told)
    server.complete(headers={"x-tracer-domain": "never"})
    after = server.wait_for(lambda counts: counts.seen == before.seen + 6)
    assert after.left_out.get("declined", 0) - before.left_out.get("declined", 0) == 5
    assert after.left_out["rate"] - before.left_out.get("rate", 0) == 1
    assert settled(server).recorded == before.recorded


def test_requests_that_are_wrong_are_vllms_own_business(server):
    headers = {"x-tracer-domain": "maths"}
    for body in (b"{", b"[]", b'{"prompt": "x", "vllm_xargs": 3}'):
        plain = server.post("/v1/completions", body)
        assert server.post("/v1/completions", body, headers) == plain
        assert plain[0] in (400, 422)


HOSTILE = [
    "../../../etc/passwd",
    "'; DROP TABLE requests; --",
    "a/b\\c%00",
    "$(touch owned)",
    "{{7*7}}",
    "\u202eabc",
    "a\x00b",
    "x" * 2_000_000,
]


def test_hostile_values_are_text_or_nothing(server, folder):
    files = {path for path in folder.rglob("*") if "routing" not in path.parts}
    before = settled(server)
    kept = {}
    for value in HOSTILE:
        answer = server.complete(
            vllm_xargs={
                "tracer_domain": value,
                "tracer_label_team": value,
                f"tracer_label_{value[:100]}": "x",
            }
        )
        kept[value[:40]] = row_of(server, answer)
    for value in HOSTILE[:5]:
        assert kept[value] == (value, {"team": value})
    for value in HOSTILE[5:]:
        assert kept[value[:40]] == ("none", {})
    after = settled(server)
    assert after.refused_values["value"] - before.refused_values.get("value", 0) == 6
    assert after.refused_values["not_kept"] >= len(HOSTILE)
    # No file has a name from a request, and none appeared outside the lake.
    new = {path for path in folder.rglob("*") if "routing" not in path.parts} - files
    assert all((folder / "lake") in path.parents for path in new)
    assert not any(word in str(path) for path in new for word in ("passwd", "DROP", "owned", "xxx"))


def test_hashed_labels_are_nowhere_in_plain(server, folder):
    answer = server.complete(
        headers={"x-tracer-label-tenant": TENANT}, vllm_xargs={"tracer_label_user": USER}
    )
    _, labels = row_of(server, answer)
    assert {len(value) for value in labels.values()} == {32}
    assert set(labels) == {"tenant", "user"}
    told = server.get("/metrics") + server.log.read_text() + repr(server.status)
    kept = b"".join(path.read_bytes() for path in (folder / "lake").rglob("*") if path.is_file())
    for plain in (TENANT, USER, "a key of more than sixteen bytes"):
        assert plain not in told
        assert plain.encode() not in kept  # requests are written by Delta, see the test below


def test_nothing_hashed_is_in_the_columns_either(server):
    from tracer import open_lake

    settled(server)
    lake = open_lake(server.control.parents[2])
    for table in ("requests", "runs"):
        text = str(lake.sql(f"SELECT * FROM {table}").pl().to_dicts())
        assert TENANT not in text
        assert USER not in text
    assert "hash_labels" in text  # of the configuration, in `runs`


def test_stop_and_start_while_serving(server):
    before = settled(server)
    code, out, err = tracer(server, "stop", "--drain", "30")
    assert (code, err) == (0, "")
    assert out.startswith("stopped: ")
    server.complete()
    stopped = server.wait_for(lambda counts: counts.seen > before.seen)
    assert (stopped.recording, stopped.chosen) == (False, before.chosen)
    assert stopped.left_out["stopped"] == 1
    assert "tracer_recording 0.0" in server.get("/metrics")
    assert tracer(server, "start", "--rate", "0")[0] == 0
    server.complete()
    server.wait_for(lambda counts: counts.seen > stopped.seen and counts.chosen == before.chosen)
    code, out, _ = tracer(server, "start")
    assert (code, "100 %" in out) == (0, True)
    server.complete()
    server.wait_for(lambda counts: counts.chosen == before.chosen + 1)
    code, out, _ = tracer(server, "status", "--format", "json")
    assert (code, json.loads(out)["recording"]) == (0, True)


def test_metrics_are_those_of_the_status(server):
    server.complete(vllm_xargs={"tracer_capture": 0, "tracer_domain": "x" * 200})
    counts = settled(server)
    text = server.get("/metrics")
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("tracer_")
    }
    assert found["tracer_up",] == 1
    assert found["tracer_requests_seen_total",] == counts.seen
    assert found["tracer_requests_total", "recorded", ""] == counts.recorded
    assert found["tracer_requests_total", "left_out", "declined"] == counts.left_out["declined"]
    assert found["tracer_tokens_total",] == counts.tokens > 0
    assert found["tracer_queue_limit_bytes",] == counts.queue_limit_bytes == 256e6
    assert counts.seen == counts.chosen + sum(counts.left_out.values())
    assert "vllm:num_requests_running" in text


def open_sockets(server):
    """(how many processes, their sockets of the network that wait for somebody)."""
    import psutil

    family = [psutil.Process(server.pid)]
    family += family[0].children(recursive=True)
    found = [
        (kind.type, kind.laddr.port)
        for process in family
        for kind in process.net_connections(kind="inet")
        if kind.status in ("LISTEN", "NONE")
    ]
    return len(family), found


def test_the_plugin_opens_no_port(server, served_model, tmp_path):
    """Beside a server without it: as many processes, as many sockets, one of them HTTP."""
    with_it = open_sockets(server)
    assert settled(server).recording
    with serving(served_model, tmp_path, env={"VLLM_PLUGINS": ""}) as bare:
        without = open_sockets(bare)
        assert "tracer_up" not in bare.get("/metrics")
    assert with_it[0] == without[0]
    assert sorted(kind for kind, _ in with_it[1]) == sorted(kind for kind, _ in without[1])
    assert int(server.url.rpartition(":")[2]) in {port for _, port in with_it[1]}
