"""The chat API as OpenAI's own client sees it."""

from __future__ import annotations

import threading
import urllib.request
from pathlib import Path

import openai
import pytest

from pipelines.stream.limits import Limits
from tests.pipelines.stream.conftest import Running, data_uri, jpeg, running, until

pytestmark = pytest.mark.filterwarnings("ignore:llm.lambda_")
QUESTION = "What color is the diamond?"


def client_of(server: Running, token: str = "none") -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=token, max_retries=0)


@pytest.fixture(scope="module")
def client(server: Running):
    with client_of(server) as client:
        yield client


def asked(text: str, *parts: dict) -> list[dict]:
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]


def picture(pixels) -> dict:
    return {"type": "image_url", "image_url": {"url": data_uri(jpeg(pixels))}}


def film(url: str) -> dict:
    return {"type": "video_url", "video_url": {"url": url}}


def test_models_are_listed(client):
    assert [m.id for m in client.models.list()] == ["llava-demo"]
    assert client.models.retrieve("llava-demo").owned_by == "videoprune"
    with pytest.raises(openai.NotFoundError, match="model='gpt-9'; allowed: llava-demo"):
        client.models.retrieve("gpt-9")


def test_pictures_are_answered(client, frames):
    answer = client.chat.completions.create(
        model="llava-demo", messages=asked(QUESTION, *map(picture, frames))
    )
    assert answer.choices[0].message.content == "white"
    assert answer.choices[0].finish_reason == "stop"
    facts = answer.videoprune
    assert facts["tokens"]["dense"] > facts["tokens"]["resident"] > 0
    assert all(0 <= a <= b <= 7 for a, b in facts["cited"])
    assert facts["cited"]
    assert set(facts["seconds"]) == {"queue", "decode", "encode", "prefill", "generate"}
    assert answer.usage.prompt_tokens > facts["tokens"]["text"] > 0
    assert answer.usage.completion_tokens > 0
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_videos_are_answered_from_data_and_from_files(client, video: Path):
    sent = film(data_uri(video.read_bytes(), "video/mp4"))
    there = film(f"file://{video.name}")
    texts = [
        client.chat.completions.create(model="llava-demo", messages=asked(QUESTION, part))
        .choices[0]
        .message.content
        for part in (sent, there)
    ]
    assert texts == ["white", "white"]


def test_several_videos_and_pictures_are_one_clip(client, video: Path, frames):
    sent = film(data_uri(video.read_bytes(), "video/mp4"))
    answer = client.chat.completions.create(
        model="llava-demo", messages=asked(QUESTION, sent, picture(frames[-1]), sent)
    )
    assert answer.choices[0].message.content == "white"
    assert answer.videoprune["cited"][0][1] <= 9.0


def test_an_answer_comes_token_by_token(client, frames):
    chunks = list(
        client.chat.completions.create(
            model="llava-demo",
            messages=asked("List the objects.", *map(picture, frames)),
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    whole = client.chat.completions.create(
        model="llava-demo", messages=asked("List the objects.", *map(picture, frames))
    )
    pieces = [c.choices[0].delta.content for c in chunks if c.choices and c.choices[0].delta.content]
    assert len(pieces) > 1
    assert "".join(pieces) == whole.choices[0].message.content
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage
    assert chunks[-2].videoprune["tokens"] == whole.videoprune["tokens"]
    assert len({c.id for c in chunks}) == 1


def test_max_tokens_ends_it(client, frames):
    answer = client.chat.completions.create(
        model="llava-demo", messages=asked("List the objects.", picture(frames[0])), max_completion_tokens=2
    )
    assert (answer.choices[0].finish_reason, answer.usage.completion_tokens) == ("length", 2)


def test_a_talk_goes_on(client, frames):
    answer = client.chat.completions.create(
        model="llava-demo",
        messages=[
            {"role": "system", "content": "Answer briefly."},
            *asked("What shape is there?", picture(frames[0])),
            {"role": "assistant", "content": "diamond"},
            {"role": "user", "content": QUESTION},
        ],
    )
    assert answer.choices[0].message.content


def test_a_live_stream_is_asked(server: Running, client, video: Path):
    server.service.streams.open("film", str(video), trusted=True)
    feed = server.service.streams.get("film")
    until(lambda: feed.state()["state"] == "ended" and feed.ended_for() is not None, "the file ends")
    by_name = client.chat.completions.create(model="live/film", messages=asked(QUESTION))
    by_id = client.chat.completions.create(
        model="llava-demo", messages=asked(QUESTION), extra_body={"stream_id": "film"}
    )
    assert by_name.choices[0].message.content == by_id.choices[0].message.content == "white"
    facts = by_name.videoprune
    assert facts["asked_at"] == feed.session.stats().last
    assert all(0 <= a <= b <= facts["asked_at"] for a, b in facts["cited"])
    assert set(facts["seconds"]) == {"queue", "encode", "prefill", "generate"}
    assert "live/film" in [m.id for m in client.models.list()]
    server.service.streams.close("film")
    with pytest.raises(openai.NotFoundError, match="no such stream"):
        client.chat.completions.create(model="live/film", messages=asked(QUESTION))


@pytest.mark.parametrize(
    ("change", "status", "said"),
    [
        ({"model": "gpt-9"}, 404, "model='gpt-9'; allowed: llava-demo, or live/"),
        ({"messages": []}, 400, "messages: List should have at least 1 item"),
        ({"messages": [{"role": "user", "content": "Hello"}]}, 400, "nothing to look at"),
        ({"messages": asked(QUESTION, film("ftp://a/b"))}, 400, "the scheme 'ftp' is not read"),
        ({"messages": asked(QUESTION, film("data:video/mp4;base64,AAAA"))}, 400, "no video"),
        ({"messages": asked(QUESTION, film("file:///etc/passwd"))}, 403, "no such file below"),
        ({"messages": asked("", film("file://diamond.mp4"))}, 400, "asks nothing"),
        (
            {"messages": asked(QUESTION, {"type": "input_audio", "input_audio": {}})},
            400,
            "messages.0.content",
        ),
        ({"n": 2}, 400, "n=2: allowed: 1"),
        ({"temperature": 0.7}, 400, "temperature=0.7: allowed: 0"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, 400, "tools="),
        ({"extra_body": {"colour": "red"}}, 400, "colour='red': it is not supported"),
        ({"max_tokens": 0}, 400, "max_tokens: Input should be greater"),
        ({"max_tokens": 10**9}, 400, "max_tokens=1000000000; allowed: 1 to 1024"),
        (
            {"extra_body": {"stream_id": "nowhere"}, "messages": asked(QUESTION)},
            404,
            "stream 'nowhere': no such",
        ),
    ],
)
def test_mistakes_have_openais_form(client, frames, change, status, said):
    with pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(
            **{"model": "llava-demo", "messages": asked(QUESTION, picture(frames[0]))} | change
        )
    assert caught.value.status_code == status
    assert said in caught.value.body["message"]
    assert set(caught.value.body) == {"message", "type", "param", "code"}


class Held:
    """An engine whose answers wait until they are let go."""

    def __init__(self, engine) -> None:
        self._engine, self.go, self.began = engine, threading.Event(), threading.Event()

    def __getattr__(self, name):
        return getattr(self._engine, name)

    def answer(self, encoded, questions, *, watch=None, **_):
        self.began.set()
        while not self.go.wait(0.01):
            if watch(["so far"]):
                break
        return self._engine.answer(encoded, questions, watch=watch, places=True)


def test_a_client_that_leaves_takes_its_question_back(engine, frames):
    held = Held(engine)
    question = asked(QUESTION, picture(frames[0]))
    with running(held, Limits(questions=1)) as server, client_of(server) as client:
        for streamed in (False, True):
            held.began.clear()
            ask = client.with_options(timeout=1.0).chat.completions.create
            with pytest.raises(openai.APITimeoutError):
                list(ask(model="llava-demo", messages=question, stream=streamed))
            assert held.began.is_set()
            until(lambda: server.service.desk.answering == 0, "the place is free again")
        text = server.service.metrics.text().decode()
        assert 'videoprune_questions_total{outcome="cancelled"} 2.0' in text
        held.go.set()
        answer = client.chat.completions.create(model="llava-demo", messages=question)
        assert answer.choices[0].message.content


def test_questions_wait_their_turn_and_no_longer(engine, frames):
    held = Held(engine)
    limits = Limits(questions=1, waiting=1, queue_seconds=1.0, question_seconds=30.0)
    found: list[int] = []
    with running(held, limits) as server, client_of(server) as client:

        def ask() -> None:
            try:
                client.chat.completions.create(
                    model="llava-demo", messages=asked(QUESTION, picture(frames[0]))
                )
                found.append(200)
            except openai.APIStatusError as error:
                found.append(error.status_code)

        threads = [threading.Thread(target=ask) for _ in range(3)]
        threads[0].start()
        assert held.began.wait(30)
        threads[1].start()
        until(lambda: server.service.desk.waiting == 1, "one waits")
        threads[2].start()
        threads[2].join(30)
        assert found == [429]
        threads[1].join(30)
        assert found == [429, 503]
        held.go.set()
        threads[0].join(30)
        assert found == [429, 503, 200]


def test_an_answer_that_takes_too_long_is_given_up(engine, frames):
    held = Held(engine)
    with running(held, Limits(question_seconds=0.5)) as server, client_of(server) as client:
        with pytest.raises(openai.APIStatusError, match=r"not complete after 0\.5 seconds") as caught:
            client.chat.completions.create(model="llava-demo", messages=asked(QUESTION, picture(frames[0])))
        assert caught.value.status_code == 504


def test_health_and_metrics_tell(server: Running):
    with urllib.request.urlopen(f"{server.url}/healthz") as answer:
        assert answer.status == 200
    with urllib.request.urlopen(f"{server.url}/metrics") as answer:
        text = answer.read().decode()
    for name in (
        "videoprune_questions_total",
        "videoprune_time_to_first_token_seconds_bucket",
        "videoprune_streams",
    ):
        assert name in text
