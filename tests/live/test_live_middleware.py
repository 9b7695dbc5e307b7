"""Headers become `vllm_xargs`; everything else passes as it came."""

import asyncio
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracer.live import middleware
from tracer.live.middleware import LabelHeaders

ALL = [
    (b"x-tracer-capture", b"1"),
    (b"X-Tracer-Domain", b"maths"),
    (b"x-tracer-label-cost-centre", b"r2"),
]
GIVEN = {"tracer_capture": "1", "tracer_domain": "maths", "tracer_label_cost_centre": "r2"}


class Inside:
    """An application that reads its body and answers with its length."""

    def __init__(self):
        self.scope = None
        self.body = b""
        self.gone = False

    async def __call__(self, scope, receive, send):
        self.scope = scope
        more = True
        while more and not self.gone:
            message = await receive()
            self.gone = message["type"] == "http.disconnect"
            self.body += message.get("body", b"")
            more = message.get("more_body", False)
        await send({"type": "http.response.start", "status": 400 if self.gone else 200})
        await send({"type": "http.response.body", "body": b"x"})


def post(
    body, headers, *, path="/v1/chat/completions", pieces=1, method="POST", root="", told=True
):
    """(application inside, messages sent) of one request."""
    inside, sent = Inside(), []
    size = -(-len(body) // pieces) or 1
    parts = [body[at : at + size] for at in range(0, len(body), size)] or [b""]
    messages = [
        {"type": "http.request", "body": part, "more_body": number + 1 < len(parts)}
        for number, part in enumerate(parts)
    ]

    async def receive():
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    if told:
        headers = [(b"content-length", str(len(body)).encode()), *headers]
    about = {"type": "http", "method": method, "path": path, "root_path": root, "headers": headers}
    asyncio.run(LabelHeaders(inside)(about, receive, send))
    return inside, sent


@pytest.mark.parametrize("pieces", [1, 7])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/responses"])
def test_headers_become_xargs(path, pieces):
    document = {"model": "m", "prompt": "größe", "temperature": 0.10000000000000001}
    inside, sent = post(json.dumps(document).encode(), ALL, path=path, pieces=pieces)
    assert json.loads(inside.body) == {**document, "vllm_xargs": GIVEN}
    assert b"content-length" not in dict(inside.scope["headers"])
    assert sent[0]["status"] == 200


def test_headers_win_and_come_first():
    body = json.dumps({"vllm_xargs": {"tracer_domain": "law", "session_id": "s"}}).encode()
    inside, _ = post(body, ALL)
    xargs = json.loads(inside.body)["vllm_xargs"]
    assert xargs == {**GIVEN, "session_id": "s"}
    assert list(xargs)[-1] == "session_id"


def test_a_null_is_no_xargs():
    inside, _ = post(b'{"vllm_xargs": null}', ALL)
    assert json.loads(inside.body) == {"vllm_xargs": GIVEN}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[1]",
        b"3",
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b'{"vllm_xargs": "text"}',
        b'{"vllm_xargs": [1]}',
        b'{"n": ' + b"9" * 5000 + b"}",
    ],
    ids=lambda body: repr(body[:14]),
)
def test_what_is_no_object_passes_as_it_is(body):
    assert post(body, ALL)[0].body == body


@pytest.mark.parametrize(
    "request_",
    [
        {"headers": [(b"x-request-id", b"1"), (b"x-tracer", b"1"), (b"x-tracer-other", b"1")]},
        {"headers": ALL, "path": "/v1/embeddings"},
        {"headers": ALL, "method": "GET"},
        {"headers": [(b"x-tracer-label-" + b"n" * 33, b"x")]},
    ],
)
def test_other_requests_are_not_touched(request_):
    body = b'{ "model":  "m" }'
    inside, _ = post(body, **request_)
    assert inside.body == body
    assert inside.scope["headers"][0] == (b"content-length", b"17")


def test_a_server_below_a_path():
    inside, _ = post(b"{}", ALL, path="/llm/v1/completions", root="/llm")
    assert json.loads(inside.body)["vllm_xargs"] == GIVEN


def test_a_repeated_header_is_joined_so_that_a_no_is_not_lost():
    for first, second in ((b"1", b"0"), (b"0", b"1")):
        inside, _ = post(b"{}", [(b"x-tracer-capture", first), (b"x-tracer-capture", second)])
        value = json.loads(inside.body)["vllm_xargs"]["tracer_capture"]
        assert value == f"{first.decode()},{second.decode()}"  # neither word: taken as a no


def test_a_no_behind_many_headers_is_not_lost():
    headers = [(f"x-tracer-label-a{n}".encode(), b"x") for n in range(100)]
    inside, _ = post(b"{}", [*headers, (b"x-tracer-capture", b"0")])
    xargs = json.loads(inside.body)["vllm_xargs"]
    assert xargs["tracer_capture"] == "0"
    assert len(xargs) == 33


def test_a_long_value_is_longer_than_a_label_may_be_but_bounded():
    inside, _ = post(b"{}", [(b"x-tracer-domain", b"y" * 1_000_000)])
    assert len(json.loads(inside.body)["vllm_xargs"]["tracer_domain"]) == 513


def test_bytes_that_are_no_text():
    headers = [(b"x-tracer-domain", b"\xff\xfe"), (b"x-tracer-label-t", "é".encode())]
    xargs = json.loads(post(b"{}", headers)[0].body)["vllm_xargs"]
    assert xargs == {"tracer_domain": "\xff\xfe", "tracer_label_t": "é"}


@pytest.mark.parametrize("told", [True, False])
def test_a_body_that_is_too_large_is_refused(monkeypatch, told):
    monkeypatch.setattr(middleware, "MOST_BODY_BYTES", 1000)
    body = json.dumps({"prompt": "x" * 2000}).encode()
    inside, sent = post(body, ALL, pieces=4, told=told)
    assert inside.body == b""
    assert [message.get("status") for message in sent] == [413, None]
    error = json.loads(sent[1]["body"])["error"]
    assert (error["code"], "1000 bytes" in error["message"]) == (413, True)
    assert (inside.scope is None) == told
    assert post(body, [])[0].body == body  # without the headers it is the server's own business


def test_a_client_that_goes_away():
    inside = Inside()

    async def receive():
        return {"type": "http.disconnect"}

    async def send(message):
        pass

    scope = {"type": "http", "method": "POST", "path": "/v1/completions", "headers": ALL}
    asyncio.run(LabelHeaders(inside)(scope, receive, send))
    assert inside.gone


def test_a_body_is_not_read_for_who_is_turned_away():
    """As vLLM does with a wrong key."""
    sent = []

    async def turn_away(scope, receive, send):
        await send({"type": "http.response.start", "status": 401})

    async def receive():
        raise AssertionError("nobody asked for the body")

    async def send(message):
        sent.append(message["status"])

    scope = {"type": "http", "method": "POST", "path": "/v1/completions", "headers": ALL}
    asyncio.run(LabelHeaders(turn_away)(scope, receive, send))
    assert sent == [401]


def test_other_connections_pass():
    seen = []

    async def inside(scope, receive, send):
        seen.append(scope["type"])

    for kind in ("lifespan", "websocket"):
        asyncio.run(LabelHeaders(inside)({"type": kind}, None, None))
    assert seen == ["lifespan", "websocket"]


@settings(deadline=None, max_examples=100)
@given(
    body=st.binary(max_size=64),
    headers=st.lists(
        st.tuples(
            st.sampled_from([b"x-tracer-capture", b"x-tracer-domain", b"x-tracer-label-t", b"x"]),
            st.binary(max_size=40),
        ),
        max_size=6,
    ),
)
def test_any_bytes_are_served(body, headers):
    inside, sent = post(body, headers)
    assert sent[0]["status"] == 200
    try:
        document = json.loads(body)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        assert inside.body == body
