"""A server that passes requests on to a good one, but for those that it spoils."""

import http.client
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

__all__ = ["BadServer"]

_CONDITIONS = {"if-none-match", "if-match"}


class BadServer:
    """``rule(method, path, number)`` says what happens to a request, the number-th of its method:

    pass; refuse (503 at once); stall (take half of it, then say nothing); cut (take half of it,
    then hang up); lose (do it, and hang up instead of answering); forget (do it without its
    conditions)
    """

    def __init__(self, behind, rule):
        self.spoilt = []
        self._rule = rule
        self._behind = urlsplit(behind)
        self._seen = {}
        self._lock = threading.Lock()
        self._over = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self):
                outer.handle(self)

            do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = handle_any  # noqa: N815

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self):
        self._over.set()
        self._server.shutdown()
        self._server.server_close()

    def handle(self, request):
        with self._lock:
            number = self._seen[request.command] = self._seen.get(request.command, 0) + 1
        what = self._rule(request.command, request.path, number)
        if what != "pass":
            self.spoilt.append((what, request.command, request.path))
        length = int(request.headers.get("content-length", 0))
        if what in ("stall", "cut"):
            request.rfile.read(length // 2)
            if what == "stall":
                self._over.wait(60)
            request.close_connection = True
            return
        body = request.rfile.read(length)
        if what == "refuse":
            self._answer(request, 503, [], b"")
            return
        status, headers, content = self._pass_on(request, body, what)
        if what == "lose":
            request.close_connection = True
            return
        self._answer(request, status, headers, content)

    def _pass_on(self, request, body, what):
        headers = {
            name: value
            for name, value in request.headers.items()
            if what != "forget" or name.lower() not in _CONDITIONS
        }
        behind = http.client.HTTPConnection(self._behind.netloc, timeout=60)
        try:
            behind.request(request.command, request.path, body, headers)
            found = behind.getresponse()
            return found.status, found.getheaders(), found.read()
        finally:
            behind.close()

    @staticmethod
    def _answer(request, status, headers, content):
        request.send_response_only(status)
        lengths = [value for name, value in headers if name.lower() == "content-length"]
        for name, value in headers:
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                request.send_header(name, value)
        is_head = request.command == "HEAD"
        request.send_header("content-length", (lengths or ["0"])[0] if is_head else len(content))
        request.end_headers()
        if not is_head:
            request.wfile.write(content)
