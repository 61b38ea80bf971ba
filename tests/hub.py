"""A loopback server that speaks the Hugging Face Hub's resolve protocol, and can misbehave."""

import hashlib
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Hub:
    """Serves ``files``: {(repository, revision, name) or "/path": bytes}.

    Attributes:
        corrupt: flip a byte of every body.
        cut_at: announce whole bodies, send so many bytes, hang up; ``cuts`` times.
        ranges: whether it can begin in the middle of a file.
        lengths: whether it says how long a body is.
        status: answer everything with this status instead.
        log: (method, path, Range header) of every request.
    """

    def __init__(self, files):
        self.files = dict(files)
        self.corrupt, self.cut_at, self.cuts, self.status = False, None, 10**9, None
        self.ranges = self.lengths = True
        self.log = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args):
                pass

            def do_HEAD(self):
                hub._answer(self)

            def do_GET(self):
                hub._answer(self)

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request, client_address):
                pass  # the client hung up

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *exception):
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, handler):
        wanted = handler.headers.get("Range")
        self.log.append((handler.command, handler.path, wanted))
        hit = re.fullmatch(r"/((?:datasets/)?[^/]+/[^/]+)/resolve/([^/]+)/(.+)", handler.path)
        body = self.files.get(hit.groups() if hit else handler.path)
        if self.status or body is None:
            self._send(handler, self.status or 404, {"X-Error-Code": "EntryNotFound"}, b"")
            return
        headers = {
            "X-Repo-Commit": hit[2] if hit else "",
            "ETag": f'"{hashlib.sha256(body).hexdigest()}"',
            "Accept-Ranges": "bytes",
        }
        if self.corrupt:
            body = body[:-1] + bytes([body[-1] ^ 255])
        status, sent = 200, body
        if wanted and self.ranges:
            start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
            status, sent = 206, body[start:]
        if handler.command == "GET" and self.cut_at is not None and self.cuts > 0:
            self.cuts -= 1
            headers["Content-Length"] = str(len(sent))
            self._send(handler, status, headers, sent[: self.cut_at])
            handler.close_connection = True
            return
        self._send(handler, status, headers, sent)

    def _send(self, handler, status, headers, body):
        handler.send_response(status)
        length = {"Content-Length": str(len(body))} if self.lengths else {"Connection": "close"}
        for key, value in {**length, **headers}.items():
            handler.send_header(key, value)
        handler.end_headers()
        if handler.command == "GET":
            handler.wfile.write(body)
