"""Servers on loopback that serve video well or badly: MJPEG and files over HTTP, RTSP (MPEG-TS over RTP over TCP)."""

from __future__ import annotations

import base64
import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Self

BOUNDARY = b"--frame\r\n"
# What a server does with one client: called in a thread of its own with the socket, which is closed afterwards.
Talk = Callable[[socket.socket], None]


class Server:
    """Accepts clients on one port of loopback; `stop` cuts all of them off, `start` serves on the same port again."""

    def __init__(self, talk: Talk) -> None:
        self.talk, self.clients = talk, 0
        self.port = 0
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener: socket.socket | None = None
        self.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))  # with SO_REUSEADDR
        self.port = self._listener.getsockname()[1]
        self._spawn(self._accept, self._listener)

    def stop(self) -> None:
        sockets, self._open = [self._listener, *self._open], []
        for each in sockets:
            if each is not None:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
                each.close()
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()
        self._threads, self._listener = [], None

    def _spawn(self, work: Callable[[socket.socket], None], argument: socket.socket) -> None:
        thread = threading.Thread(target=work, args=(argument,), name="test server", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                self.clients += 1
                self._open.append(client)
                self._spawn(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client:
            self.talk(client)


def request(client: socket.socket) -> bytes:
    """One request's head."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = client.recv(4096)
        if not part:
            raise ConnectionResetError
        data += part
    return data


def hold(client: socket.socket) -> None:
    """Say nothing until the other side, or `stop`, closes."""
    while client.recv(4096):
        pass


def part(jpeg: bytes) -> bytes:
    return BOUNDARY + b"Content-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(jpeg) + jpeg + b"\r\n"


def mjpeg(pictures: Iterator[bytes], *, every: float = 0.02, then: Talk | None = None) -> Talk:
    """Parts of a multipart stream, raw bytes each, `every` seconds; at the end `then`, or the connection closes.

    `pictures` is shared by all clients: who comes again gets the rest.
    """

    def talk(client: socket.socket) -> None:
        request(client)
        client.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=frame\r\n\r\n")
        for picture in pictures:
            client.sendall(picture)
            time.sleep(every)
        if then is not None:
            then(client)

    return talk


def file_server(data: bytes, *, cut: Callable[[int], int] | None = None, kind: str = "video/mp4") -> Talk:
    """One file with ranges. cut: bytes that the n-th answer may have before the connection breaks."""
    count = [0]

    def talk(client: socket.socket) -> None:
        head = request(client).decode()
        first, last = 0, len(data) - 1
        for line in head.split("\r\n"):
            if line.lower().startswith("range: bytes="):
                a, _, b = line.split("=")[1].partition("-")
                first, last = int(a), int(b) if b else last
        count[0] += 1
        body = data[first : last + 1]
        client.sendall(
            f"HTTP/1.1 206 Partial Content\r\nContent-Type: {kind}\r\nAccept-Ranges: bytes\r\nConnection: close\r\n"
            f"Content-Range: bytes {first}-{last}/{len(data)}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        )
        client.sendall(body if cut is None else body[: cut(count[0])])

    return talk


def folder_server(files: dict[str, Callable[[], bytes]]) -> Talk:
    """Files by path, made when they are asked for; 404 for others."""

    def talk(client: socket.socket) -> None:
        path = request(client).split()[1].decode()
        if path not in files:
            client.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return
        body = files[path]()
        kind = "application/vnd.apple.mpegurl" if path.endswith("m3u8") else "video/mp2t"
        client.sendall(
            f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
            "Connection: close\r\n\r\n".encode()
            + body
        )

    return talk


def rtsp(stream: Callable[[], Iterator[tuple[float, bytes]]], *, login: str = "") -> Talk:
    """RTSP (RFC 2326) over TCP: (seconds to wait, MPEG-TS packets) of `stream` as RTP of payload type 33.

    login: `user:password` for Basic authentication; "": none is asked for.
    """

    def talk(client: socket.socket) -> None:
        while True:
            head = request(client).decode()
            method, fields = head.split()[0], _fields(head)
            reply: dict[str, Any] = {"CSeq": fields.get("cseq", "0")}
            body = ""
            wanted = "Basic " + base64.b64encode(login.encode()).decode()
            if login and method != "OPTIONS" and fields.get("authorization") != wanted:
                _answer(client, "401 Unauthorized", {**reply, "WWW-Authenticate": 'Basic realm="test"'})
                continue
            if method == "OPTIONS":
                reply["Public"] = "OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN"
            elif method == "DESCRIBE":
                reply["Content-Type"] = "application/sdp"
                body = (
                    "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=test\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\n"
                    "m=video 0 RTP/AVP 33\r\na=control:track0\r\n"
                )
            elif method == "SETUP":
                reply |= {"Transport": "RTP/AVP/TCP;unicast;interleaved=0-1", "Session": "1"}
            elif method in ("PLAY", "TEARDOWN"):
                reply["Session"] = "1"
            _answer(client, "200 OK", reply, body)
            if method == "TEARDOWN":
                return
            if method == "PLAY":
                _play(client, stream())
                return

    return talk


def _fields(head: str) -> dict[str, str]:
    lines = (line.partition(":") for line in head.split("\r\n")[1:] if ":" in line)
    return {name.strip().lower(): value.strip() for name, _, value in lines}


def _answer(client: socket.socket, status: str, fields: dict[str, Any], body: str = "") -> None:
    lines = [f"RTSP/1.0 {status}", *(f"{k}: {v}" for k, v in fields.items())]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    client.sendall(("\r\n".join(lines) + "\r\n\r\n" + body).encode())


def _play(client: socket.socket, stream: Iterator[tuple[float, bytes]]) -> None:
    number, began = 0, time.monotonic()
    for wait, data in stream:
        time.sleep(wait)
        for at in range(0, len(data), 7 * 188):
            clock = int((time.monotonic() - began) * 90_000) & 0xFFFFFFFF
            packet = struct.pack(">BBHII", 0x80, 33, number & 0xFFFF, clock, 7) + data[at : at + 7 * 188]
            client.sendall(struct.pack(">cBH", b"$", 0, len(packet)) + packet)
            number += 1
