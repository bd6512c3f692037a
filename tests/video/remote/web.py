"""A web server on this machine that answers as it is told: whole files, half ones, late ones, none."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

Answer = Callable[["Handler", bytes], None]


def whole(handler: Handler, body: bytes) -> None:
    handler.begin(200, len(body))
    handler.wfile.write(body)


def status(code: int) -> Answer:
    def answer(handler: Handler, body: bytes) -> None:
        handler.begin(code, 4)
        handler.wfile.write(b"why?")

    return answer


def promising(length: int) -> Answer:
    """All bytes, below a header that promises others."""

    def answer(handler: Handler, body: bytes) -> None:
        handler.begin(200, length)
        handler.wfile.write(body)

    return answer


def silent_after(count: int, seconds: float = 5.0) -> Answer:
    def answer(handler: Handler, body: bytes) -> None:
        handler.begin(200, len(body))
        handler.wfile.write(body[:count])
        handler.wfile.flush()
        handler.web.closing.wait(seconds)

    return answer


def dripping(pause: float) -> Answer:
    def answer(handler: Handler, body: bytes) -> None:
        handler.begin(200, len(body))
        for byte in body:
            handler.wfile.write(bytes([byte]))
            time.sleep(pause)

    return answer


def endless(handler: Handler, body: bytes) -> None:
    """No length, and no end."""
    handler.begin(200, None)
    while not handler.web.closing.is_set():
        handler.wfile.write(bytes(2**16))


class Web:
    """files: by path. answers: by path, what the next GETs get, the last one from then on; others get the file."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.answers: dict[str, list[Answer]] = {}
        self.heads: dict[str, int] = {}  # lengths that HEAD tells instead
        self.tags: dict[str, str] = {}
        self.gets: list[str] = []
        self.closing = threading.Event()
        self.address = ""

    def put(self, path: str, body: bytes, *answers: Answer, tag: str = "1") -> str:
        """The address."""
        self.files[path], self.answers[path], self.tags[path] = body, list(answers), tag
        return self.address + path


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    web: Web

    def begin(self, code: int, length: int | None) -> None:
        self.send_response(code)
        if length is not None:
            self.send_header("Content-Length", str(length))
        if tag := self.web.tags.get(self.path):
            self.send_header("ETag", tag)
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True

    def do_HEAD(self) -> None:
        body = self.web.files.get(self.path)
        self.begin(404 if body is None else 200, self.web.heads.get(self.path, len(body or b"")))

    def do_GET(self) -> None:
        self.web.gets.append(self.path)
        body, answers = self.web.files.get(self.path), self.web.answers.get(self.path, [])
        if body is None:
            status(404)(self, b"")
            return
        answer = answers[0] if answers else whole
        if len(answers) > 1:
            answers.pop(0)
        try:
            answer(self, body)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def log_message(self, *_: Any) -> None: ...


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None: ...


@contextmanager
def answering(handler: Callable[..., BaseHTTPRequestHandler]) -> Iterator[str]:
    """Address of a server on this machine, while the block runs."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def shared(folder: Path) -> Iterator[str]:
    """A folder with listings of itself."""
    with answering(functools.partial(Quiet, directory=str(folder))) as address:
        yield address


@contextmanager
def serving() -> Iterator[Web]:
    web = Web()
    with answering(type("Bound", (Handler,), {"web": web})) as web.address:
        yield web
        web.closing.set()
