"""What strangers may send: each is refused in a sentence, the server lives on, and its memory stays flat."""

from __future__ import annotations

import gc
import http.client
import io
import json
import socket
import ssl
import struct
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import psutil
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from pipelines.stream.limits import Limits
from pipelines.stream.server import Address
from pipelines.stream.tls import certificate_files
from tests.pipelines.stream.conftest import DEADLINE, Running, data_uri, jpeg, running, until
from videoprune import Engine

pytestmark = pytest.mark.filterwarnings("ignore:llm.lambda_")
TOKEN = "a-long-secret"
LIMITS = Limits(
    body_bytes=1 << 20,
    body_seconds=1.0,
    header_seconds=1.0,
    frame_bytes=1 << 18,
    pixels=500_000,
    text=2000,
    fetch_seconds=2.0,
    media=4,
    bad_tokens=1000,
)
GREY = jpeg(np.full((32, 32, 3), 99, np.uint8))


@pytest.fixture(scope="module")
def server(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("allowed")
    (folder / "out").symlink_to("/etc")
    with running(engine, LIMITS, Address(port=0, token=TOKEN), files=folder) as server:
        yield server


def png(width: int, height: int) -> bytes:
    """A picture of so many pixels in a few bytes: they are all black, or missing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(bytes(99)))
        + chunk(b"IEND", b"")
    )


def large_video() -> bytes:
    """One frame of more pixels than allowed."""
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt = 1024, 1024, "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.zeros((1024, 1024, 3), np.uint8), format="rgb24")
        container.mux([*stream.encode(frame), *stream.encode(None)])
    return out.getvalue()


def wide_jpeg() -> bytes:
    """Its header says 60000 x 60000."""
    at = GREY.index(b"\xff\xc0") + 5
    return GREY[:at] + struct.pack(">HH", 60_000, 60_000) + GREY[at + 4 :]


def chat(**change: Any) -> bytes:
    body = {"model": "llava-demo", "messages": [{"role": "user", "content": "What is there?"}]}
    return json.dumps(body | change).encode()


def look(kind: str, url: str, text: str = "What is there?", times: int = 1) -> bytes:
    part = {"type": f"{kind}_url", f"{kind}_url": {"url": url}}
    content = [*([part] * times), {"type": "text", "text": text}]
    return chat(messages=[{"role": "user", "content": content}])


JSON = {"Content-Type": "application/json"}
CHAT = "/v1/chat/completions"
PICTURE = data_uri(GREY)
# name: method, path, headers beside the token's, body, status, words of the sentence
REQUESTS: dict[str, tuple[str, str, dict[str, str], Any, int, str]] = {
    "no token": ("GET", "/v1/models", {"Authorization": ""}, None, 401, "token: missing or wrong"),
    "wrong token": ("GET", "/metrics", {"Authorization": "Bearer nothing"}, None, 401, "token: missing or wrong"),
    "strange token": ("GET", "/api/streams", {"Authorization": "Bearer \xff\xfe"}, None, 401, "token:"),
    "wrong login": ("POST", "/api/login", JSON, b'{"token": "guess"}', 401, "token:"),
    "rebinding": ("GET", "/v1/models", {"Host": "evil.example"}, None, 421, "Host 'evil.example' is not"),
    "no host": ("GET", "/v1/models", {"Host": ""}, None, 421, "Host ''"),
    "other origin": ("POST", CHAT, JSON | {"Origin": "http://evil.example"}, chat(), 403, "another site"),
    "null origin": ("POST", CHAT, JSON | {"Origin": "null"}, chat(), 403, "another site"),
    "cross site": ("POST", CHAT, JSON | {"Sec-Fetch-Site": "cross-site"}, chat(), 403, "asked by another site"),
    "long body": ("POST", CHAT, JSON, b"x" * (2 << 20), 413, "body: too large"),
    "said to be long": ("POST", CHAT, JSON | {"Content-Length": "99999999999"}, b"x", 413, "body: too large"),
    "no JSON": ("POST", CHAT, JSON, b"{", 400, "body: no JSON"),
    "no object": ("POST", CHAT, JSON, b"[1]", 400, "a JSON list; allowed: an object"),
    "deep JSON": ("POST", CHAT, JSON, b'{"a":' + b"[" * 200_000, 400, "nested too deeply"),
    "long number": ("POST", CHAT, JSON, b'{"a":' + b"9" * 9999 + b"}", 400, "body: no JSON"),
    "half characters": ("POST", CHAT, JSON, chat(model="\ud800"), 404, "model="),
    "no UTF-8": ("POST", CHAT, JSON, b'{"model":"\xff"}', 400, "body: no JSON"),
    "long text": ("POST", CHAT, JSON, look("image", PICTURE, "a" * 2001), 400, "2001 characters; allowed: 2000"),
    "many pictures": ("POST", CHAT, JSON, look("image", PICTURE, times=5), 400, "5 pictures and videos; allowed: 4"),
    "PNG bomb": ("POST", CHAT, JSON, look("image", data_uri(png(30_000, 30_000))), 400, "too many pixels; allowed"),
    "large PNG": ("POST", CHAT, JSON, look("image", data_uri(png(800, 900))), 400, "900 x 800 pixels"),
    "PNG cut": ("POST", CHAT, JSON, look("image", data_uri(png(300, 300))), 400, "no whole picture"),
    "JPEG bomb": ("POST", CHAT, JSON, look("image", data_uri(wide_jpeg())), 400, "too many pixels"),
    "no picture": ("POST", CHAT, JSON, look("image", data_uri(b"<svg/>")), 400, "no whole picture"),
    "no base64": ("POST", CHAT, JSON, look("image", "data:image/png;base64,@@@"), 400, "no data URI in base64"),
    "playlist": ("POST", CHAT, JSON, look("video", data_uri(b"#EXTM3U\nfile:///etc/passwd")), 400, "no video"),
    "concat": ("POST", CHAT, JSON, look("video", data_uri(b"ffconcat version 1.0\nfile /etc/passwd")), 400, "no video"),
    "broken video": ("POST", CHAT, JSON, look("video", data_uri(b"\0\0\0\x20ftyp" + bytes(99))), 400, "video_url 1:"),
    "large video": ("POST", CHAT, JSON, look("video", data_uri(large_video())), 400, "1024 x 1024 pixels"),
    "any file": ("POST", CHAT, JSON, look("video", "file:///etc/passwd"), 403, "no such file below"),
    "path traversal": ("POST", CHAT, JSON, look("video", "file://../../etc/passwd"), 403, "no such file below"),
    "symbolic link": ("POST", CHAT, JSON, look("video", "file://out/passwd"), 403, "no such file below"),
    "zero in a path": ("POST", CHAT, JSON, look("video", "file://a\0b"), 403, "no such file below"),
    "loopback": ("POST", CHAT, JSON, look("video", "http://127.0.0.1/a.mp4"), 400, "not a public address"),
    "localhost": ("POST", CHAT, JSON, look("image", "http://localhost:1/a"), 400, "not a public address"),
    "number": ("POST", CHAT, JSON, look("video", "http://2130706433/a"), 400, "not a public address"),
    "mapped": ("POST", CHAT, JSON, look("video", "http://[::ffff:127.0.0.1]/a"), 400, "not a public address"),
    "metadata": ("POST", CHAT, JSON, look("video", "http://169.254.169.254/latest"), 400, "not a public address"),
    "private": ("POST", CHAT, JSON, look("video", "https://10.0.0.7/a"), 400, "not a public address"),
    "multicast": ("POST", CHAT, JSON, look("video", "http://224.0.0.1/a"), 400, "not a public address"),
    "scheme": ("POST", CHAT, JSON, look("video", "gopher://example.org/"), 400, "the scheme 'gopher' is not read"),
    "password": ("POST", CHAT, JSON, look("video", "http://a:b@example.org/"), 400, "a user or password"),
    "new line": ("POST", CHAT, JSON, look("video", "http://example.org/\r\nX: y"), 400, "no http or https address"),
    "page's parents": ("GET", "/page/..%2fapp.py", {}, None, 404, "Not Found"),
    "strange name": ("POST", "/api/streams", JSON, b'{"name": "../a", "url": "/dev/video0"}', 403, "url: cameras"),
    "server's camera": ("POST", "/api/streams", JSON, b'{"name": "a", "url": "/dev/video0"}', 403, "--source"),
    "server's network": ("POST", "/api/streams", JSON, b'{"name": "a", "url": "rtsp://10.0.0.1/"}', 403, "--source"),
    "stream of a file": ("POST", "/api/streams", JSON, b'{"name": "a", "url": "/etc/passwd"}', 403, "no such file"),
    "more fields": ("POST", "/api/streams", JSON, b'{"name": "a", "url": "b", "\\udc00": 1}', 400, "valid string"),
    "no time": ("GET", "/api/streams/a/thumbnail?at=nan", {}, None, 404, "no such stream"),
    "no such method": ("DELETE", CHAT, {}, None, 405, "Method Not Allowed"),
    "no such path": ("GET", "/etc/passwd", {}, None, 404, "Not Found"),
}  # fmt: skip


def ask(
    server: Running, method: str, path: str, headers: dict[str, str], body: Any
) -> tuple[int, dict[str, Any]]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=DEADLINE)
    try:
        connection.request(method, path, body, {"Authorization": f"Bearer {TOKEN}"} | headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    except (BrokenPipeError, ConnectionResetError):  # it was refused before all was sent
        answer = connection.response_class(connection.sock, method=method)
        answer.begin()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def is_alive(server: Running) -> bool:
    status, found = ask(server, "GET", "/v1/models", {}, None)
    return status == 200 and found["data"][0]["id"] == "llava-demo"


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_is_refused_in_a_sentence(server: Running, name: str):
    method, path, headers, body, status, words = REQUESTS[name]
    found, answer = ask(server, method, path, headers, body)
    assert found == status, answer
    message = answer["error"]["message"]
    assert words in message
    assert len(message) < 400
    assert TOKEN not in message
    assert "/tmp" not in message
    assert is_alive(server)


def say(**data: Any) -> str:
    return json.dumps(data)


PUSH = say(type="push", key="0123456789abcdef")
# name: what is sent, words of the sentence, or the code with which the connection ends
FRAMES: dict[str, tuple[list[Any], Any]] = {
    "no picture": ([PUSH, b"abc"], "without a JPEG's first two"),
    "a cut picture": ([PUSH, GREY[:-9]], "picture: cut"),
    "a bomb": ([PUSH, wide_jpeg()], "60000 x 60000 pixels"),
    "a PNG": ([PUSH, png(9, 9)], "without a JPEG's first two"),
    "nothing": ([PUSH, b""], "0 bytes"),
    "too large": ([PUSH, bytes(1 << 19)], 1009),
    "a picture of nobody": ([GREY], "this viewer sends no stream"),
    "no JSON": (["{"], "body: no JSON"),
    "deep JSON": (["[" * 60_000], "nested too deeply"),
    "a long event": ([say(type="ask", id="a", text="a" * 70_000)], "event: 70"),
    "no type": (["{}"], "type='None'; allowed: push"),
    "a type that is none": ([say(type={"a": 1})], "allowed: push"),
    "no id": ([PUSH, say(type="ask", text="a")], "id: no text"),
    "no question": ([PUSH, say(type="ask", id="a", text=" ")], "text: no text of 1 to 2000"),
    "one option": ([PUSH, say(type="ask", id="a", text="a", options=["b"])], "options: allowed"),
    "many options": ([PUSH, say(type="ask", id="a", text="a", options=["b"] * 99)], "options: allowed"),
    "options of numbers": ([PUSH, say(type="stand", text="a", options=[1, 2])], "options: allowed"),
    "a short key": ([say(type="push", key="a")], "key: too short"),
    "a key of half characters": (['{"type": "push", "key": "' + "\\ud800" * 20 + '"}'], "not ASCII"),
    "a stream of nobody": ([say(type="stand", text="a")], "no such stream"),
    "a number that is none": ([PUSH, say(type="drop", number="a")], "number: no whole number"),
    "half characters": ([PUSH, '{"type": "stand", "text": "\\ud800", "fires": "a"}'], "without options"),
    "many mistakes": (["{"] * 60, 1008),
}


def talk(server: Running, sent: list[Any]) -> Any:
    """The first refusal, or the code of the close."""
    name = "hostile" if PUSH in sent else "nobody"
    url = f"ws://127.0.0.1:{server.port}/ws/streams/{name}"
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with connect(url, additional_headers=headers, open_timeout=DEADLINE, proxy=None) as socket:
        try:
            for one in sent:
                socket.send(one)
            end = time.monotonic() + DEADLINE
            while time.monotonic() < end:
                message = json.loads(socket.recv(timeout=DEADLINE))
                if message["type"] == "refused" and len(sent) < 10:
                    return message["message"]
            raise AssertionError(f"not refused: {sent}")
        except ConnectionClosed as closed:
            return closed.rcvd.code if closed.rcvd else None


@pytest.mark.parametrize("name", FRAMES)
def test_a_frame_or_event_is_refused_in_a_sentence(server: Running, name: str):
    sent, words = FRAMES[name]
    found = talk(server, sent)
    assert found == words if isinstance(words, int) else words in found
    assert is_alive(server)
    until(lambda: server.service.viewers == 0, "it is gone")


def test_memory_stays_flat(server: Running):
    def all_once() -> int:
        for method, path, headers, body, *_ in REQUESTS.values():
            ask(server, method, path, headers, body)
        for sent, _ in FRAMES.values():
            talk(server, sent)
        gc.collect()
        return psutil.Process().memory_info().rss

    all_once()
    before = all_once()
    for _ in range(2):
        after = all_once()
    assert after - before < 24 << 20
    assert server.service.desk.answering == 0


def _raw(server: Running, *parts: bytes) -> bytes:
    """What comes back for bytes that are sent a fraction of a second apart, until the server ends it."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE) as sock:
        for part in parts:
            sock.sendall(part)
        got = b""
        try:
            while data := sock.recv(65536):
                got += data
        except ConnectionResetError:
            pass
        return got


def test_slow_clients_are_let_go(server: Running):
    assert _raw(server, b"GET / HT") == b""
    head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n".encode()
    answer = _raw(server, head + b"Content-Length: 50\r\n\r\n{")
    assert b" 408 " in answer.split(b"\r\n")[0]
    assert b"body: not whole after 1 seconds" in answer
    chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    answer = _raw(server, head + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n", *[chunk] * 17)
    assert b" 413 " in answer.split(b"\r\n")[0]
    assert is_alive(server)


def test_connections_have_a_limit(engine: Engine):
    with running(engine, Limits(connections=4), Address(port=0)) as server:
        held = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(4)]
        until(lambda: len(server.open_connections()) >= 4, "they are there")
        answer = _raw(server, b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert b" 503 " in answer.split(b"\r\n")[0]
        for one in held:
            one.close()
        until(lambda: not server.open_connections(), "they are gone")
        assert ask(server, "GET", "/v1/models", {}, None)[0] == 200


@pytest.mark.parametrize("change", [{"Origin": "http://evil.example"}, {"Authorization": "Bearer nothing"}])
def test_another_sites_socket_is_refused(server: Running, change: dict[str, str]):
    headers = {"Authorization": f"Bearer {TOKEN}"} | change
    with pytest.raises(InvalidStatus) as caught:
        connect(f"ws://127.0.0.1:{server.port}/ws/streams/a", additional_headers=headers, proxy=None)
    assert caught.value.response.status_code == (401 if "Authorization" in change else 403)


def test_the_token_comes_by_cookie_or_protocol_too(server: Running):
    status, _ = ask(server, "POST", "/api/login", {"Authorization": ""} | JSON, say(token=TOKEN).encode())
    assert status == 200
    status, _ = ask(
        server, "GET", "/v1/models", {"Authorization": "", "Cookie": f"videoprune_token={TOKEN}"}, None
    )
    assert status == 200
    protocols = ["videoprune", f"videoprune.token.{TOKEN}"]
    with connect(f"ws://127.0.0.1:{server.port}/ws/streams/a", subprotocols=protocols, proxy=None) as sock:  # type: ignore[arg-type]
        assert sock.subprotocol == "videoprune"  # the secret is not said again
        assert json.loads(sock.recv())["type"] == "hello"


def test_guesses_are_slowed_down(engine: Engine):
    with running(engine, Limits(bad_tokens=3), Address(port=0, token=TOKEN)) as server:
        wrong = [ask(server, "GET", "/metrics", {"Authorization": f"Bearer {i}"}, None)[0] for i in range(5)]
        assert wrong == [401, 401, 401, 429, 429]
        assert ask(server, "GET", "/metrics", {}, None)[0] == 429  # who guesses, waits
        assert ask(server, "GET", "/healthz", {}, None)[0] == 200


@pytest.mark.parametrize(
    ("host", "token", "words"),
    [
        ("0.0.0.0", "", "lets others in; allowed: --token"),
        ("192.168.1.4", "", "lets others in"),
        ("127.0.0.1", "short", "token: too short"),
        ("127.0.0.1", "with a space", "token: a space"),
    ],
)
def test_others_are_let_in_with_a_token_alone(host: str, token: str, words: str):
    with pytest.raises(ValueError, match=words):
        Address(host, 0, token)


def test_a_certificate_is_made_and_used(engine: Engine, tmp_path: Path):
    files = certificate_files("self-signed", tmp_path / "tls", ["camera.local", "10.1.2.3"])
    assert certificate_files("self-signed", tmp_path / "tls", []) == files  # kept
    assert files[1].stat().st_mode & 0o077 == 0
    with running(engine, address=Address(port=0, tls=files)) as server:
        context = ssl.create_default_context(cafile=str(files[0]))
        connection = http.client.HTTPSConnection("localhost", server.port, context=context, timeout=DEADLINE)
        connection.request("GET", "/v1/models")
        answer = connection.getresponse()
        assert answer.status == 200
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        connection.close()
    with pytest.raises(ValueError, match="no certificate and its key"):
        certificate_files(f"{files[1]},{files[0]}", tmp_path, [])


def test_nothing_is_written_to_disk(server: Running, video: Path):
    """A file that is opened for writing would be seen here: all of this process go through `open`."""
    written: list[str] = []

    def note(event: str, args: tuple[Any, ...]) -> None:
        if watching and event == "open" and isinstance(args[0], str) and "w" in str(args[1] or ""):
            written.append(args[0])

    watching: list[int] = []
    sys.addaudithook(note)
    watching.append(1)
    for kind, url in (("image", data_uri(GREY)), ("video", data_uri(video.read_bytes()))):
        assert ask(server, "POST", CHAT, JSON, look(kind, url))[0] == 200
    watching.clear()
    assert not [p for p in written if not p.startswith(("/dev/", "/proc/"))]
