"""A request of OpenAI's chat API, looked through: what is asked about which pictures, videos or live stream."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipelines.stream.limits import Limits
from pipelines.stream.refused import Refused

LIVE = "live/"  # of a model's name, before that of a stream
_TOKENS = 64  # of an answer, where the request says nothing
# Fields that change nothing here, since answers are greedy and nothing is stored; other values are refused by name.
_HARMLESS: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "temperature": (0,),
    "top_p": (1,),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logprobs": (False,),
    "store": (False,),
    "tools": ([],),
    "response_format": ({"type": "text"},),
}
_UNREAD = ("seed", "user", "metadata", "safety_identifier", "prompt_cache_key")

M = TypeVar("M", bound=BaseModel)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Url(_Strict):
    url: str
    detail: str | None = None


class TextPart(_Strict):
    type: Literal["text"]
    text: str


class ImagePart(_Strict):
    type: Literal["image_url"]
    image_url: Url


class VideoPart(_Strict):
    type: Literal["video_url"]
    video_url: Url


class Message(_Strict):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart | ImagePart | VideoPart]
    name: str | None = None


class StreamOptions(_Strict):
    include_usage: bool = False
    include_obfuscation: bool = False


class ChatRequest(BaseModel):
    """Other fields are looked at in `_check_others`."""

    model_config = ConfigDict(extra="allow", strict=True)
    model: str
    messages: list[Message] = Field(min_length=1)
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    stream_id: str | None = None


@dataclass(frozen=True)
class Medium:
    kind: Literal["image", "video"]
    url: str


@dataclass(frozen=True)
class Asked:
    """text: the question. media: in their order. live: name of a stream; "": none."""

    model: str
    text: str
    media: tuple[Medium, ...]
    live: str
    tokens: int
    streamed: bool
    usage: bool


def read_json(body: bytes) -> dict[str, Any]:
    """Raises Refused for what is no JSON object."""
    try:
        found = json.loads(body)
    except RecursionError:
        raise Refused(400, "body: nested too deeply; allowed: a JSON object", code="bad_json") from None
    except ValueError as error:
        raise Refused(
            400, f"body: no JSON ({str(error)[:120]}); allowed: a JSON object", code="bad_json"
        ) from None
    if not isinstance(found, dict):
        raise Refused(400, f"body: a JSON {type(found).__name__}; allowed: an object", code="bad_json")
    return found


def validated(kind: type[M], data: dict[str, Any]) -> M:
    """Raises Refused, which names the first field that is wrong."""
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])[:80]
        raise Refused(400, f"{where}: {first['msg']}", code="invalid_value", param=where) from None


def read_asked(body: bytes, model: str, limits: Limits) -> Asked:
    """model: the only name beside those of live streams. Raises Refused."""
    data = read_json(body)
    request = validated(ChatRequest, data)
    _check_others(request.model_extra or {})
    if request.model != model and not request.model.startswith(LIVE):
        raise Refused(
            404,
            f"model={request.model[:80]!r}; allowed: {model}, or {LIVE} and the name of a stream",
            code="model_not_found",
            param="model",
        )
    live = request.model[len(LIVE) :] if request.model.startswith(LIVE) else ""
    if live and request.stream_id not in (None, live):
        raise Refused(
            400, f"stream_id={request.stream_id!r} beside model={request.model!r}; allowed: one of them"
        )
    text, media = _question(request.messages, limits)
    live = live or request.stream_id or ""
    _check_media(media, live, limits)
    tokens = request.max_completion_tokens or request.max_tokens or _TOKENS
    if tokens > limits.answer_tokens:
        raise Refused(400, f"max_tokens={tokens}; allowed: 1 to {limits.answer_tokens}", param="max_tokens")
    usage = request.stream_options is not None and request.stream_options.include_usage
    return Asked(request.model, text, media, live, tokens, request.stream, usage)


def _check_others(others: dict[str, Any]) -> None:
    for name, value in others.items():
        if value is None or name in _UNREAD or value in _HARMLESS.get(name, ()):
            continue
        allowed = _HARMLESS.get(name)
        instead = f"allowed: {allowed[0]!r}, which changes nothing" if allowed else "it is not supported"
        shown = repr(value)[:40]
        raise Refused(400, f"{name[:40]}={shown}: {instead}", code="unsupported_parameter", param=name[:40])


def _question(messages: list[Message], limits: Limits) -> tuple[str, tuple[Medium, ...]]:
    """One user's message is the question as it is; of a talk each turn is a line or more that says whose it is."""
    said: list[tuple[str, str]] = []
    media: list[Medium] = []
    for message in messages:
        parts = (
            [TextPart(type="text", text=message.content)]
            if isinstance(message.content, str)
            else message.content
        )
        texts = []
        for part in parts:
            if isinstance(part, TextPart):
                texts.append(part.text)
            elif isinstance(part, ImagePart):
                media.append(Medium("image", part.image_url.url))
            else:
                media.append(Medium("video", part.video_url.url))
        said.append((message.role, "\n".join(texts)))
    if said[-1][0] != "user" or not said[-1][1].strip():
        raise Refused(
            400, "messages: the last one asks nothing; allowed: a user's, with text", param="messages"
        )
    names = {"assistant": "Assistant: ", "user": "User: "}
    alone = len(said) == 1
    text = said[0][1] if alone else "\n".join(names.get(role, "") + words for role, words in said)
    if len(text) > limits.text:
        raise Refused(400, f"messages: {len(text)} characters; allowed: {limits.text}", param="messages")
    return text, tuple(media)


def _check_media(media: tuple[Medium, ...], live: str, limits: Limits) -> None:
    if live and media:
        raise Refused(
            400, f"messages: pictures beside the stream {live[:64]!r}; allowed: either", param="messages"
        )
    if not live and not media:
        raise Refused(
            400,
            "messages: nothing to look at; allowed: an image_url, a video_url, or stream_id for a live stream",
            param="messages",
        )
    if len(media) > limits.media:
        raise Refused(
            400, f"messages: {len(media)} pictures and videos; allowed: {limits.media}", param="messages"
        )
