"""A judge behind any endpoint that speaks OpenAI's chat protocol."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

from videoprune.eval.judge import JudgeError, JudgeSettings, Messages, Reply

_PATH = "/chat/completions"
_AGAIN = {408, 409, 425, 429}
_LONGEST_WAIT = 60.0  # seconds


class HttpJudge:
    """Asks `url` (".../v1", or the whole address of chat/completions).

    What may pass (429, 5xx, no connection, no answer in `timeout` seconds, a body that is no completion) is tried
    again, `attempts` times in all, after the seconds the server names or `wait` doubled each time; then
    JudgeError. Any other refusal, such as a wrong key or model, is ValueError: it would be the same for every
    question.
    """

    def __init__(
        self,
        url: str,
        settings: JudgeSettings,
        *,
        key: str = "",
        timeout: float = 60.0,
        attempts: int = 5,
        wait: float = 1.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"url={url!r}; allowed: http://... or https://...")
        if attempts < 1:
            raise ValueError(f"attempts={attempts}; allowed: 1 or more")
        self.url = url if url.endswith(_PATH) else url.rstrip("/") + _PATH
        self.settings, self.key = settings, key
        self.timeout, self.attempts, self.wait, self.sleep = timeout, attempts, wait, sleep

    def __call__(self, messages: Messages) -> Reply:
        reason = ""
        for attempt in range(self.attempts):
            pause = min(self.wait * 2**attempt, _LONGEST_WAIT)
            try:
                return _reply(self._post(messages))
            except urllib.error.HTTPError as error:
                reason = f"HTTP {error.code}"
                if error.code not in _AGAIN and error.code < 500:
                    raise ValueError(f"{self.url}: {reason}: {_body(error)}") from error
                pause = _named_pause(error.headers.get("Retry-After"), pause)
            except (OSError, http.client.HTTPException) as error:
                reason = f"{type(error).__name__}: {error}"
            except (ValueError, KeyError, TypeError, IndexError) as error:
                reason = f"no completion in the answer ({error})"
            if attempt + 1 < self.attempts:
                self.sleep(pause)
        raise JudgeError(f"no reply after {self.attempts} attempts: {reason}")

    def _post(self, messages: Messages) -> Any:
        asked: dict[str, Any] = {"model": self.settings.model, "messages": messages}
        for name in ("temperature", "max_tokens"):
            value = getattr(self.settings, name)
            asked |= {} if value is None else {name: value}
        headers = {"Content-Type": "application/json"}
        headers |= {"Authorization": f"Bearer {self.key}"} if self.key else {}
        request = urllib.request.Request(self.url, json.dumps(asked).encode(), headers)
        with urllib.request.urlopen(request, timeout=self.timeout) as answer:
            return json.load(answer)


def _reply(answer: Any) -> Reply:
    text = answer["choices"][0]["message"]["content"]
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"content={text!r}")
    return Reply(text.strip(), str(answer.get("model", "")))


def _named_pause(header: str | None, otherwise: float) -> float:
    """Seconds that Retry-After names; a date there is not waited for."""
    try:
        return min(max(float(header or ""), 0.0), _LONGEST_WAIT)
    except ValueError:
        return otherwise


def _body(error: urllib.error.HTTPError) -> str:
    try:
        return error.read(300).decode(errors="replace").strip()
    except (OSError, http.client.HTTPException):
        return str(error.reason)
