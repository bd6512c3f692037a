"""Addresses of the network: which are public, that a name is looked up once, and where redirects may lead."""

from __future__ import annotations

import io
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from pipelines.stream import fetching
from pipelines.stream.fetching import Fetcher, is_public
from pipelines.stream.limits import Limits
from pipelines.stream.refused import Refused

LIMITS = Limits(fetch_bytes=1000, fetch_seconds=1.0)


class Site(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        kind = self.path.partition("?")[0]
        if kind == "/drip":
            self.send_response(200)
            self.end_headers()
            while not self.server.ends.wait(0.05):  # type: ignore[attr-defined]
                try:
                    self.wfile.write(b"x")
                except OSError:
                    return
            return
        if kind.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", self.path[4:])
            self.end_headers()
            return
        body = {"/large": b"x" * 1001, "/whole": b"a video"}.get(kind, b"")
        self.send_response(200 if body else 404)
        if kind == "/large":
            self.send_header("Content-Length", "5")  # it lies
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture(scope="module")
def site() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    server.ends = threading.Event()  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_address[1]
    server.ends.set()  # type: ignore[attr-defined]
    server.shutdown()
    thread.join()
    server.server_close()


def fetch(url: str, *, private: bool = True) -> bytes:
    file = io.BytesIO()
    Fetcher(LIMITS, private=private)(url, file)
    return file.getvalue()


def test_what_is_there_is_fetched(site: int):
    assert fetch(f"http://127.0.0.1:{site}/whole") == b"a video"
    assert fetch(f"http://127.0.0.1:{site}/to//whole") == b"a video"


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/nothing", "answered 404; allowed: 200"),
        ("/drip", "did not answer|over 1000 bytes"),
        ("/to/" * 9 + "/whole", "over 5 redirects|answered 404"),
        ("/to/file:///etc/passwd", "no http or https address"),
        ("/to/gopher://localhost/", "no http or https address"),
    ],
)
def test_what_is_not_is_refused(site: int, path: str, words: str):
    with pytest.raises(Refused, match=words):
        fetch(f"http://127.0.0.1:{site}{path}")


def test_no_more_is_read_than_allowed(site: int):
    assert len(fetch(f"http://127.0.0.1:{site}/large")) == 5  # what the length said
    with pytest.raises(Refused, match="over 3 bytes"):
        Fetcher(Limits(fetch_bytes=3), private=True)(f"http://127.0.0.1:{site}/whole", io.BytesIO())


def test_a_redirect_into_this_network_is_refused(site: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fetching, "is_public", lambda address: address == "127.0.0.1")
    assert fetch(f"http://127.0.0.1:{site}/whole", private=False) == b"a video"
    with pytest.raises(Refused, match=r"127\.0\.0\.2 is not a public address"):
        fetch(f"http://127.0.0.1:{site}/to/http://127.0.0.2:{site}/whole", private=False)


def test_a_name_is_looked_up_once(site: int, monkeypatch: pytest.MonkeyPatch):
    """A second look might find another address (DNS rebinding)."""
    looked: list[str] = []

    def look_up(host: str, port: int, *_: object, **__: object) -> list[tuple]:
        looked.append(host)
        address = "127.0.0.1" if host in ("a.test", "127.0.0.1") else "10.0.0.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(fetching, "is_public", lambda address: True)
    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    assert fetch(f"http://a.test:{site}/whole", private=False) == b"a video"
    assert looked == ["a.test", "127.0.0.1"]  # the second is the address itself


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("127.0.0.1", False),
        ("0.0.0.0", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.0.1", False),
        ("100.64.0.1", False),
        ("169.254.169.254", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("240.0.0.1", False),
        ("::1", False),
        ("::", False),
        ("fe80::1%eth0", False),
        ("fc00::1", False),
        ("ff02::1", False),
        ("::ffff:8.8.8.8", False),
        ("64:ff9b::7f00:1", False),
        ("2002:7f00:1::", False),
        ("2001:0:1::", False),
        ("::7f00:1", False),
    ],
)
def test_which_addresses_are_public(address: str, public: bool):
    assert is_public(address) == public
