"""Viewers on the WebSocket: cameras that are sent, questions, standing questions, who comes back and who is slow."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from pipelines.stream.limits import Limits
from tests.pipelines.stream.conftest import DEADLINE, Running, jpeg, running, until
from videoprune import Engine

pytestmark = pytest.mark.filterwarnings("ignore:llm.lambda_")
KEY = "0123456789abcdef"


@pytest.fixture(scope="module")
def server(engine: Engine) -> Iterator[Running]:
    """Takes every frame that comes."""
    with running(engine, fps=1000.0, network=True) as server:
        yield server


class Client:
    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.heard: list[dict[str, Any]] = []

    def say(self, kind: str, **data: Any) -> None:
        self.socket.send(json.dumps({"type": kind, **data}))

    def hear(self, kind: str, **fits: Any) -> dict[str, Any]:
        """The next message of a kind whose fields fit."""
        end = time.monotonic() + DEADLINE
        while time.monotonic() < end:
            message = json.loads(self.socket.recv(timeout=DEADLINE))
            self.heard.append(message)
            if message["type"] == kind and all(message.get(k) == v for k, v in fits.items()):
                return message
        raise AssertionError(f"no {kind} {fits}: {self.heard}")

    def frame(self, pixels: np.ndarray) -> dict[str, Any]:
        """Send a frame and wait until it was watched."""
        self.socket.send(jpeg(pixels))
        return self.hear("shown")


@contextmanager
def viewing(server: Running, name: str, **options: Any) -> Iterator[Client]:
    url = f"ws://127.0.0.1:{server.port}/ws/streams/{name}"
    with connect(url, open_timeout=DEADLINE, proxy=None, **options) as socket:
        yield Client(socket)


def test_a_camera_is_sent_and_asked(server, frames):
    with viewing(server, "cam") as client:
        assert client.hear("hello")["stream"] is None
        client.say("push", key=KEY)
        assert client.hear("hello")["sends"]
        for one in frames[::3]:
            shown = client.frame(one)
        assert shown["grid"] == [4, 4]
        assert 0 < len(shown["kept"]) < shown["dense"] == 16
        assert "picture" not in shown  # it is this viewer's own
        client.say("ask", id="a", text="What color is the diamond?")
        answer = client.hear("answer", id="a")
        assert answer["text"] == "white"
        assert answer["cited"]
        assert all(b <= answer["asked_at"] for _, b in answer["cited"])
        assert any(m["type"] == "text" and m["id"] == "a" for m in client.heard)
        client.say("ask", id="b", text="What color is the diamond?", options=["red", "white"])
        assert client.hear("answer", id="b")["text"] == "white"
        state = client.hear("state")
        assert state["encoded"] == 3
        assert state["tokens"] > 0
        with viewing(server, "cam") as other:  # that only looks
            assert other.hear("shown")["picture"].startswith("data:image/jpeg;base64,")
            other.say("ask", id="c", text="List the objects.")
            assert other.hear("answer", id="c")["text"]
            other.socket.send(jpeg(frames[0]))
            assert "this viewer sends no stream" in other.hear("refused")["message"]
    server.service.streams.close("cam")


def test_who_comes_back_goes_on(server, frames):
    with viewing(server, "back") as client:
        client.say("push", key=KEY)
        client.hear("hello", sends=True)
        client.frame(frames[0])
        client.socket.socket.close()  # without a word
    feed = server.service.streams.get("back")
    with viewing(server, "back") as thief:
        thief.say("push", key="another-secret-key")
        assert thief.hear("refused")["code"] == "stream_taken"
    with viewing(server, "back") as client:
        client.say("push", key=KEY)
        client.hear("hello", sends=True)
        client.socket.send(jpeg(frames[4]))
        until(lambda: feed.session.stats().frames == 2, "the same stream goes on")
        assert feed is server.service.streams.get("back")
    server.service.streams.close("back")


def test_nobody_comes_back(engine, frames):
    with running(engine, Limits(grace_seconds=0.2, ended_seconds=0.2)) as server:
        with viewing(server, "gone") as client:
            client.say("push", key=KEY)
            client.hear("hello", sends=True)
            assert server.service.streams.find("gone")
        until(lambda: server.service.streams.find("gone") is None, "it is closed")


def test_a_standing_question_fires_once(server, frames):
    black = np.zeros_like(frames[0])
    with viewing(server, "stand") as client:
        client.say("push", key=KEY)
        client.hear("hello", sends=True)
        client.frame(black)
        client.say("stand", text="What color is the diamond?", options=["red", "white"], fires="white")
        feed = server.service.streams.get("stand")
        until(feed.standing.waiting, "it waits")
        assert not feed.standing.fired()  # nothing new was shown
        for one in frames:
            client.frame(one)
        until(feed.standing.fired, "it fires")
        lists = [m["list"] for m in client.heard if m["type"] == "standing"]
        found = lists[-1] if lists[-1][0]["fired"] is not None else client.hear("standing")["list"]
        assert found[0]["fires"] == "white"
        assert 0 < found[0]["fired"] <= feed.session.stats().last
        client.say("drop", number=found[0]["number"])
        client.hear("standing", list=[])
        client.say("stand", text="What color is it?", options=["red", "white"], fires="blue")
        assert "fires='blue'; allowed: one of red, white" in client.hear("refused")["message"]
    server.service.streams.close("stand")


def test_frames_that_are_no_pictures_are_refused_and_counted(server, frames):
    with viewing(server, "broken") as client:
        client.say("push", key=KEY)
        client.hear("hello", sends=True)
        client.socket.send(b"no picture")
        assert "frame: picture" in client.hear("refused")["message"]
        client.frame(frames[0])
        assert client.hear("state")["broken"] == 1
    server.service.streams.close("broken")


def test_it_is_paused_for_all(server, frames):
    with viewing(server, "pause") as client:
        client.say("push", key=KEY)
        client.hear("hello", sends=True)
        client.frame(frames[0])
        client.say("pause", on=True)
        client.hear("state", paused=True)
        client.socket.send(jpeg(frames[4]))
        client.hear("state", skipped=1)
        client.say("pause", on=False)
        client.hear("state", paused=False)
        client.frame(frames[6])
    server.service.streams.close("pause")


def test_viewers_and_streams_have_limits(engine, frames):
    with running(engine, Limits(viewers=2, streams=1)) as server:
        with viewing(server, "one") as one, viewing(server, "two") as two:
            one.say("push", key=KEY)
            one.hear("hello", sends=True)
            two.say("push", key=KEY)
            assert two.hear("refused")["code"] == "too_many_streams"
            with (
                viewing(server, "one") as three,
                pytest.raises(ConnectionClosed, match="2 viewers; allowed: 2"),
            ):
                three.hear("hello")
        until(lambda: server.service.viewers == 0, "they are gone")
        with viewing(server, "one") as again:
            again.hear("hello")


def test_a_viewer_that_is_gone_without_a_word_is_let_go(engine):
    with (
        running(engine, Limits(ping_seconds=0.3)) as server,
        viewing(server, "half", ping_interval=None) as client,
    ):
        client.hear("hello")
        client.socket.recv_messages.pause()  # it reads no more, and so answers no ping
        until(lambda: server.service.viewers == 0, "the server lets it go")
        client.socket.recv_messages.resume()


def test_a_stream_that_ends_is_still_asked(server, video):
    server.service.streams.open("short", str(video), trusted=True)
    with viewing(server, "short") as client:
        client.hear("state", state="ended")
        client.say("ask", id="a", text="What color is the diamond?")
        assert client.hear("answer", id="a")["text"] == "white"
        server.service.streams.close("short")
        client.hear("closed")
