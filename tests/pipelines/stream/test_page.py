"""The page in a headless Chromium whose camera plays a MovingShapes clip; skipped where there is no Chromium."""

from __future__ import annotations

from pathlib import Path

import av
import pytest

from tests.pipelines.stream.chromium import CHROMIUM, chromium
from tests.pipelines.stream.conftest import Running, running, until
from videoprune import Engine
from videoprune.eval.benchmarks.moving_shapes.make import clip_frames
from videoprune.eval.benchmarks.moving_shapes.plan import ClipPlan

pytestmark = [
    pytest.mark.filterwarnings("ignore:llm.lambda_"),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
]
_RATE = 8


@pytest.fixture(scope="module")
def camera(plan: ClipPlan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the browser's camera sees, over and over."""
    path = tmp_path_factory.mktemp("camera") / "camera.y4m"
    with av.open(str(path), "w", format="yuv4mpegpipe") as container:
        stream = container.add_stream("rawvideo", rate=_RATE)
        stream.width = stream.height = 224
        stream.pix_fmt = "yuv420p"
        for chunk in clip_frames(plan.scene, 224, _RATE):
            for pixels in chunk:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def ask(page, text: str) -> None:
    page.js(f"document.getElementById('question').value = {text!r}")
    page.js("document.getElementById('ask').requestSubmit()")


def test_a_camera_is_watched_and_asked(engine: Engine, camera: Path, tmp_path: Path):
    with running(engine) as server, chromium(tmp_path / "profile", camera) as page:
        page.open(server.url)
        assert page.js("document.getElementById('empty').hidden") is False
        page.js("document.getElementById('use-camera').click()")
        page.until("document.getElementById('caption').textContent.includes('6 of 16 tokens kept')")
        (feed,) = server.service.streams.all()
        until(lambda: feed.session.stats().steps >= 4, "frames come")
        ask(page, "What color is the diamond?")
        page.until("document.querySelector('#answers .facts')")
        assert page.js("document.querySelector('#answers .said').textContent") == "white"
        time = page.js("document.querySelector('#answers .cites button').textContent")
        assert time.startswith("0:")
        page.js("document.querySelector('#answers .cites button').click()")
        page.until("document.querySelector('.then img')?.naturalWidth > 0")
        page.js("document.getElementById('options').value = 'red, white'")
        page.js("document.getElementById('options').dispatchEvent(new Event('input'))")
        page.js("document.getElementById('fires').value = 'white'")
        page.js("document.getElementById('question').value = 'What color is the diamond?'")
        page.js("document.getElementById('stand').click()")
        page.until("document.querySelector('#standing-list li.fired')")
        assert "white, at 0:" in page.js("document.querySelector('#answers .said').textContent")
        page.js("document.getElementById('stop').click()")
        until(lambda: feed.listeners == 0, "the page leaves")
        assert page.errors == []


def test_a_connection_that_is_lost_comes_back_to_the_same_stream(
    engine: Engine, camera: Path, tmp_path: Path
):
    with running(engine) as server, chromium(tmp_path / "profile", camera) as page:
        page.open(server.url)
        page.js("document.getElementById('use-camera').click()")
        page.until("document.getElementById('caption').textContent.includes('kept')")
        (feed,) = server.service.streams.all()
        for connection in list(server.open_connections()):
            connection.loop.call_soon_threadsafe(connection.transport.abort)
        page.until("document.getElementById('link').textContent.includes('again in')")
        page.until("document.getElementById('link').textContent === 'connected'")
        frames = feed.session.stats().frames
        until(lambda: feed.session.stats().frames > frames + 2, "frames come again")
        assert server.service.streams.all() == [feed]
        ask(page, "What color is the diamond?")
        page.until("document.querySelector('#answers .facts')")


def test_a_file_is_watched_and_a_cited_time_goes_back_in_it(engine: Engine, video: Path, tmp_path: Path):
    with running(engine) as server, chromium(tmp_path / "profile") as page:
        page.open(server.url)
        root = page.call("DOM.getDocument")["root"]["nodeId"]
        node = page.call("DOM.querySelector", nodeId=root, selector="#file")["nodeId"]
        page.call("DOM.setFileInputFiles", nodeId=node, files=[str(video)])
        page.until("document.getElementById('video').ended")
        (feed,) = server.service.streams.all()
        assert feed.session.stats().frames >= 4
        ask(page, "What color is the diamond?")
        page.until("document.querySelector('#answers .facts')")
        assert page.js("document.querySelector('#answers .said').textContent") == "white"
        minutes, seconds = page.js(
            "[...document.querySelectorAll('#answers .cites button')].at(-1).textContent.split(' ')[0].split(':')"
        )
        page.js("[...document.querySelectorAll('#answers .cites button')].at(-1).click()")
        page.until("!document.getElementById('video').ended")
        # The stream began when the page connected, a moment after the file did.
        assert abs(page.js("document.getElementById('video').currentTime") - float(seconds)) < 2.0
        assert minutes == "0"
        assert page.errors == []


def test_what_is_not_there_is_said(server: Running, tmp_path: Path):
    with chromium(tmp_path / "profile") as page:
        page.open(server.url)
        ask(page, "What is there?")
        assert "Nothing is watched yet" in page.js("document.getElementById('ask-error').textContent")
        page.js("document.getElementById('use-camera').click()")
        page.until(
            "/There is no camera|camera was refused/.test(document.getElementById('empty-text').textContent)"
        )
        page.js("document.getElementById('use-stream').click()")
        page.until("document.getElementById('empty-text').textContent.includes('No stream is open')")
        unnamed = page.js(
            "[...document.querySelectorAll('button, input, select, textarea')].filter(e => !(e.labels?.length"
            " || e.textContent.trim() || e.ariaLabel)).map(e => e.outerHTML)"
        )
        assert unnamed == []
