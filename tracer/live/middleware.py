"""Headers as labels: ``vllm serve --middleware tracer.live.middleware.LabelHeaders``.

    x-tracer-capture: 0             tracer_capture
    x-tracer-domain: maths          tracer_domain
    x-tracer-label-<name>: value    tracer_label_<name>, hyphens as underscores

They become ``vllm_xargs`` of the request's body, in which headers win: a gateway in front of the
server has the last word. What the values may be is decided where requests are chosen.
"""

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from tracer.live.choose import CAPTURE_KEY, DOMAIN_KEY, LABEL_KEY, MAX_VALUE

__all__ = ["MOST_BODY_BYTES", "LabelHeaders"]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

# Bodies with such headers are held whole, so larger ones are refused (413).
MOST_BODY_BYTES = 128 * 1024 * 1024
_PATHS = frozenset(
    {
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/messages",
        "/v1/responses",
    }
)
_LABEL = b"x-tracer-label-"
_MOST_HEADERS = 32
_MOST_NAME = 32
# Bytes; more than a label may have, so that a longer one is refused and counted, not cut.
_MOST_VALUE = 4 * MAX_VALUE + 1
_XARGS = "vllm_xargs"


class LabelHeaders:
    """ASGI middleware. A request without such headers passes as if it were not there.

    The body is read when the application asks for it, so behind vLLM's check of keys: who may not
    use the server cannot have it hold bodies. As the new length is not known before, the
    application sees a body without Content-Length, as one that is sent in chunks.

    Args:
        app: the application inside.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if (
            scope["type"] != "http"
            or scope["method"] != "POST"
            or scope["path"].removeprefix(scope.get("root_path", "")).rstrip("/") not in _PATHS
            or not (given := _given(scope["headers"]))
        ):
            await self._app(scope, receive, send)
            return
        if _length(scope["headers"]) > MOST_BODY_BYTES:
            await _refuse(send)
            return
        headers = [pair for pair in scope["headers"] if pair[0].lower() != b"content-length"]
        exchange = _Exchange(receive, send, given)
        await self._app({**scope, "headers": headers}, exchange.receive, exchange.send)
        if exchange.too_large:
            await _refuse(send)


class _Exchange:
    """Gives the application the changed body at once, then whatever the server says.

    Of a body that is too large it sees a client that went away, and its answer goes nowhere.
    """

    def __init__(self, receive: Receive, send: Send, given: dict[str, str]) -> None:
        self._receive, self._send = receive, send
        self._given = given
        self._done = False
        self.too_large = False

    async def receive(self) -> Message:
        if self.too_large:
            return {"type": "http.disconnect"}
        if self._done:
            return await self._receive()
        pieces: list[bytes] = []
        size, more = 0, True
        while more:
            message = await self._receive()
            if message["type"] != "http.request":  # the client went away
                return message
            pieces.append(message.get("body", b""))
            size += len(pieces[-1])
            if size > MOST_BODY_BYTES:
                self.too_large = True
                return {"type": "http.disconnect"}
            more = message.get("more_body", False)
        self._done = True
        body = _labelled(b"".join(pieces), self._given)
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(self, message: Message) -> None:
        if not self.too_large:
            await self._send(message)


def _labelled(body: bytes, given: dict[str, str]) -> bytes:
    """The body with ``given`` in its ``vllm_xargs``; as it is, if it is no JSON object."""
    try:
        document = json.loads(body)
        xargs = (document.get(_XARGS) or {}) if isinstance(document, dict) else None
        if not isinstance(xargs, dict):
            return body  # the server says what is wrong with it
        # First, where no number of other keys hides them.
        rest = {key: value for key, value in xargs.items() if key not in given}
        return json.dumps({**document, _XARGS: {**given, **rest}}).encode()
    except (ValueError, RecursionError):
        return body


def _given(headers: Any) -> dict[str, str]:
    """What the headers say, by the names of ``vllm_xargs``; repeated ones joined, as HTTP does."""
    given: dict[str, str] = {}
    for name, value in headers:
        if len(name) > len(_LABEL) + _MOST_NAME:
            continue
        lower = name.lower()
        if lower == b"x-tracer-capture":
            key = CAPTURE_KEY
        elif lower == b"x-tracer-domain":
            key = DOMAIN_KEY
        elif lower.startswith(_LABEL):
            key = LABEL_KEY + lower.removeprefix(_LABEL).decode("latin-1").replace("-", "_")
        else:
            continue
        text = _text(value)
        if key in given:
            given[key] = f"{given[key]},{text}"[:_MOST_VALUE]
        elif len(given) < _MOST_HEADERS or key == CAPTURE_KEY:
            given[key] = text
    return given


def _text(value: bytes) -> str:
    value = value[:_MOST_VALUE]
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _length(headers: Any) -> int:
    for name, value in headers:
        if name.lower() == b"content-length" and value.isdigit():
            return int(value[:20])
    return 0


async def _refuse(send: Send) -> None:
    error = {
        "message": f"a body with x-tracer headers has at most {MOST_BODY_BYTES} bytes; say the"
        f" same in its {_XARGS}",
        "type": "BadRequestError",
        "param": None,
        "code": 413,
    }
    body = json.dumps({"error": error}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": 413, "headers": headers})
    await send({"type": "http.response.body", "body": body})
