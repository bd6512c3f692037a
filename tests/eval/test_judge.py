"""The judge: its words, how replies are read, averages by hand, and a server that behaves badly."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from videoprune.eval.judge import (
    JudgeError,
    JudgeSettings,
    Messages,
    Reply,
    ReplyCache,
    Rule,
    Verdict,
    judge_rows,
    messages,
    read_reply,
    summarize_verdicts,
)
from videoprune.eval.judge_http import HttpJudge

YES = "{'pred': 'yes', 'score': 4}"


def row(name: str, text: str = "a cat", outcome: str = "complete") -> dict[str, str]:
    return {"question_id": name, "question": f"{name}?", "answer": "cat", "text": text, "outcome": outcome}


def test_the_words_are_those_of_the_papers() -> None:
    system, user = messages("what is it?", "cat", "a cat")
    assert (system["role"], user["role"]) == ("system", "user")
    assert system["content"].startswith(
        "You are an intelligent chatbot designed for evaluating the correctness"
    )
    assert "task:------##INSTRUCTIONS: - Focus" in system["content"]
    assert (
        "\n\nQuestion: what is it?\nCorrect Answer: cat\nPredicted Answer: a cat\n\nProvide"
        in user["content"]
    )
    assert "where value of 'pred' is  a string of" in user["content"]
    assert user["content"].endswith("{'pred': 'yes', 'score': 4.8}.")
    text = json.dumps(messages("q", "a", "p"))
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "5ef26869408b60d0"


@pytest.mark.parametrize(
    ("text", "rule", "found"),
    [
        (YES, "video-chatgpt", ("yes", 4.0)),
        ("{'pred': 'yes', 'score': 4.8}.", "video-chatgpt", None),
        ("{'pred': 'yes', 'score': 4.8}.", "ig-vlm", ("yes", 4.8)),
        ("{'pred': 'yes', 'score': 4.8}.", "lmms-eval", ("yes", 4.0)),
        ("Sure! {'pred': 'Yes, mostly', 'score': 3} {'pred': 'no', 'score': 0}", "lmms-eval", ("yes", 3.0)),
        ("Sure! {'pred': 'yes', 'score': 3}", "video-chatgpt", None),
        ("{'pred': 'unknown', 'score': 2}", "video-chatgpt", ("unknown", 2.0)),
        ("{'pred': 'yes', 'score': '4'}", "ig-vlm", ("yes", 4.0)),
        ("{'pred': True, 'score': 4}", "video-chatgpt", None),
        ("{'pred': 'yes'}", "lmms-eval", None),
        ("['yes', 4]", "ig-vlm", None),
        ("__import__('os').getcwd()", "ig-vlm", None),
        ("", "lmms-eval", None),
    ],
)
def test_replies(text: str, rule: Rule, found: tuple[str, float] | None) -> None:
    assert read_reply(text, rule) == found


VERDICTS = [
    Verdict("1", "yes", 4.8),
    Verdict("2", "no", 1.0),
    Verdict("3", "unknown", 2.0),  # has "no" in it
    Verdict("4", "partially", 3.0),  # neither
    Verdict("5", "Yes", 5.0),
    Verdict("6", reason="unparsable"),
    Verdict("7", reason="no answer"),
    Verdict("8", reason="no reply after 5 attempts: HTTP 500"),
]


@pytest.mark.parametrize(
    ("rule", "accuracy", "score"),
    [
        ("video-chatgpt", 2 / 4, (4 + 1 + 2 + 3 + 5) / 5),
        ("lmms-eval", 2 / 6, (4 + 1 + 2 + 3 + 5) / 7),
        ("ig-vlm", 1 / 7, (4.8 + 1 + 2 + 3 + 5) / 5),
    ],
)
def test_averages_by_hand(rule: Rule, accuracy: float, score: float) -> None:
    found = summarize_verdicts(VERDICTS, JudgeSettings("m", 0.5, rule=rule))
    assert found["accuracy"] == pytest.approx(100 * accuracy, abs=1e-4)
    assert found["score"] == pytest.approx(score, abs=1e-4)
    assert found["corrected"] == 25.0
    assert (found["unparsable"], found["no_answer"], found["no_reply"], found["judged"]) == (1, 1, 1, 5)
    assert (found["model"], found["temperature"]) == ("m", 0.5)
    assert summarize_verdicts([], JudgeSettings("m"))["accuracy"] is None


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match=r"rule='mine'; allowed: video-chatgpt"):
        JudgeSettings("m", rule="mine")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"temperature=3; allowed: 0 to 2"):
        JudgeSettings("m", 3)


class Scripted:
    """Gives the replies in turn and counts how often it was asked."""

    def __init__(self, *replies: str | Exception) -> None:
        self.replies, self.asked = list(replies), 0

    def __call__(self, asked: Messages) -> Reply:
        self.asked += 1
        reply = self.replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return Reply(reply, "served-1")


def test_what_cannot_be_read_is_asked_again_but_not_for_ever(tmp_path: Path) -> None:
    judge = Scripted("what?", YES, "1", "2", "3")
    found = list(judge_rows([row("a"), row("b")], judge, JudgeSettings("m"), ReplyCache(tmp_path / "c")))
    assert [(v.pred, v.reason, v.served) for v in found] == [
        ("yes", "", "served-1"),
        ("", "unparsable", "served-1"),
    ]
    assert judge.asked == 5
    cold = Scripted("what?")
    settings = JudgeSettings("m", 0.0)
    assert next(judge_rows([row("a")], cold, settings, ReplyCache(tmp_path / "d"))).reason == "unparsable"


def test_replies_are_kept_and_a_torn_line_is_asked_again(tmp_path: Path) -> None:
    path, settings = tmp_path / "cache.jsonl", JudgeSettings("m")
    rows = [row("a"), row("b"), row("c", outcome="failed")]
    first = Scripted(YES, JudgeError("no reply after 2 attempts: HTTP 500"))
    found = list(judge_rows(rows, first, settings, ReplyCache(path)))
    assert [v.reason for v in found] == ["", "no reply after 2 attempts: HTTP 500", "no answer"]
    second = Scripted("{'pred': 'no', 'score': 0}")
    assert [v.pred for v in judge_rows(rows, second, settings, ReplyCache(path))] == ["yes", "no", ""]
    path.write_bytes(path.read_bytes()[:-5])
    third = Scripted("{'pred': 'no', 'score': 1}")
    assert [v.score for v in judge_rows(rows, third, settings, ReplyCache(path))] == [4.0, 1.0, 0.0]
    assert len(path.read_text().splitlines()) == 2
    other = Scripted(YES, YES)
    list(judge_rows(rows, other, JudgeSettings("another"), ReplyCache(path)))
    assert other.asked == 2  # another model's verdicts are its own


class Server(ThreadingHTTPServer):
    """Answers by a script of (status, headers, body or seconds to sleep first); remembers what came."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.script: list[tuple[int, dict[str, str], Any]] = []
        self.seen: list[dict[str, Any]] = []
        self.keys: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.seen.append({"path": self.path, **json.loads(body)})
        self.server.keys.append(self.headers.get("Authorization"))
        status, headers, answer = self.server.script.pop(0)
        if isinstance(answer, float):
            time.sleep(answer)
            answer = completion(YES)
        data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        try:
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(data))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)
        except OSError:
            pass  # the client gave up waiting

    def log_message(self, *_: object) -> None:
        pass


def completion(text: Any) -> dict[str, Any]:
    return {"model": "gpt-x-0613", "choices": [{"message": {"role": "assistant", "content": text}}]}


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()


def ask(server: Server, pauses: list[float], **options: Any) -> Reply:
    settings = JudgeSettings("gpt-x", options.pop("temperature", None), options.pop("max_tokens", None))
    judge = HttpJudge(server.url, settings, sleep=pauses.append, **{"attempts": 3} | options)
    return judge(messages("q", "a", "p"))


def test_a_good_server(server: Server) -> None:
    server.script = [(200, {}, completion(f" {YES} "))] * 2
    assert ask(server, [], key="secret", temperature=0.0, max_tokens=64) == Reply(YES, "gpt-x-0613")
    assert ask(server, []) == Reply(YES, "gpt-x-0613")
    first, second = server.seen
    assert (first["path"], first["model"], first["temperature"], first["max_tokens"]) == (
        "/v1/chat/completions",
        "gpt-x",
        0.0,
        64,
    )
    assert "temperature" not in second
    assert server.keys == ["Bearer secret", None]
    assert first["messages"] == messages("q", "a", "p")


@pytest.mark.parametrize(
    ("bad", "pause"),
    [
        ((429, {"Retry-After": "7"}, {}), 7.0),
        ((429, {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, {}), 1.0),
        ((429, {"Retry-After": "99999"}, {}), 60.0),
        ((500, {}, b"oops"), 1.0),
        ((503, {}, {}), 1.0),
        ((200, {}, b"<html>"), 1.0),
        ((200, {}, {"choices": []}), 1.0),
        ((200, {}, completion(None)), 1.0),
        ((200, {"Content-Length": "999999"}, b"{"), 1.0),
    ],
)
def test_what_passes_is_tried_again(
    server: Server, bad: tuple[int, dict[str, str], Any], pause: float
) -> None:
    pauses: list[float] = []
    server.script = [bad, (200, {}, completion(YES))]
    assert ask(server, pauses, timeout=0.3 if "Content-Length" in bad[1] else 5).text == YES
    assert pauses == [pause]


def test_a_slow_server_is_left(server: Server) -> None:
    pauses: list[float] = []
    server.script = [(200, {}, 0.6), (200, {}, completion(YES))]
    assert ask(server, pauses, timeout=0.15).text == YES
    assert pauses == [1.0]


def test_attempts_are_bounded(server: Server) -> None:
    pauses: list[float] = []
    server.script = [(500, {}, {})] * 5
    with pytest.raises(JudgeError, match="no reply after 3 attempts: HTTP 500"):
        ask(server, pauses)
    assert pauses == [1.0, 2.0]
    assert len(server.seen) == 3


def test_a_refusal_ends_the_run(server: Server) -> None:
    server.script = [(401, {}, b"bad key")]
    with pytest.raises(ValueError, match="HTTP 401: bad key"):
        ask(server, [])
    with pytest.raises(ValueError, match="url='ftp://x'"):
        HttpJudge("ftp://x", JudgeSettings("m"))


def test_no_server() -> None:
    judge = HttpJudge("http://127.0.0.1:9/v1", JudgeSettings("m"), attempts=2, sleep=lambda s: None)
    with pytest.raises(JudgeError, match="no reply after 2 attempts: "):
        judge(messages("q", "a", "p"))


def test_a_whole_run_over_http(server: Server, tmp_path: Path) -> None:
    rows = [row(f"q{i}") for i in range(20)]
    server.script = [(200 if i % 3 else 500, {}, completion(YES)) for i in range(40)]
    refusals = sum(status == 500 for status, _, _ in server.script)  # one question may meet them all
    settings = JudgeSettings("gpt-x", 0.0)
    judge = HttpJudge(server.url, settings, attempts=refusals + 1, sleep=lambda s: None)
    found = list(judge_rows(rows, judge, settings, ReplyCache(tmp_path / "c"), workers=4))
    assert [v.question_id for v in found] == [r["question_id"] for r in rows]
    assert {v.pred for v in found} == {"yes"}
    assert len((tmp_path / "c").read_text().splitlines()) == 20
