"""`POST /v1/chat/completions` and `GET /v1/models`, as OpenAI's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from pipelines.stream.chat_answer import END, Completion, Said, cut_safe, failed
from pipelines.stream.chat_request import LIVE, Asked, read_asked
from pipelines.stream.desk import Job, Work
from pipelines.stream.question import ask_clip, ask_stream
from pipelines.stream.refused import Refused
from pipelines.stream.service import Service


def chat_routes(service: Service) -> APIRouter:
    routes = APIRouter()

    @routes.get("/v1/models")
    def models() -> dict[str, Any]:
        names = [service.model, *(f"{LIVE}{feed.name}" for feed in service.streams.all())]
        return {"object": "list", "data": [_model(name, service) for name in names]}

    @routes.get("/v1/models/{name:path}")
    def model(name: str) -> dict[str, Any]:
        if name.startswith(LIVE):
            service.streams.get(name[len(LIVE) :])
        elif name != service.model:
            said = f"model={name[:80]!r}; allowed: {service.model}"
            raise Refused(404, said, code="model_not_found", param="model")
        return _model(name, service)

    @routes.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        asked = read_asked(await request.body(), service.model, service.limits)
        return await _answer(request, asked, service)

    return routes


def _model(name: str, service: Service) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": service.started, "owned_by": "videoprune"}


def _work(asked: Asked, service: Service) -> Work[Said]:
    took = service.metrics.took
    if asked.live:
        return ask_stream(service.streams.get(asked.live), asked.text, tokens=asked.tokens, took=took)
    return ask_clip(
        service.engine, lambda: service.media.clip(asked.media), asked.text, tokens=asked.tokens, took=took
    )


async def _answer(request: Request, asked: Asked, service: Service) -> Response:
    """The answer, or its beginning: what is refused has its own status."""
    async with AsyncExitStack() as stack:
        gone = await stack.enter_async_context(_Gone(request))
        job = await gone.or_end(stack.enter_async_context(service.desk.job(_work(asked, service))))
        if not asked.streamed:
            said = await gone.or_end(job.result())
            return JSONResponse(Completion(asked.model).whole(said))
        text = await gone.or_end(job.text())
        gone.stop()
        events = _events(job, asked, text, stack.pop_all())
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(events, media_type="text/event-stream", headers=headers)


async def _events(
    job: Job[Said], asked: Asked, text: str | None, stack: AsyncExitStack
) -> AsyncIterator[str]:
    """text: the first so far. stack: what ends with the answer."""
    completion, sent = Completion(asked.model), 0
    async with stack:
        yield completion.first()
        try:
            while text is not None:
                whole = cut_safe(text.lstrip())
                if len(whole) > sent:
                    yield completion.more(whole[sent:])
                    sent = len(whole)
                text = await job.text()
        except Refused as refused:
            yield failed(refused)
            return
        said = job.done
        if len(said.text) > sent:
            yield completion.more(said.text[sent:])
        yield completion.last(said)
        if asked.usage:
            yield completion.usage(said)
        yield END


class _Gone:
    """Within, waiting ends once the client is gone."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._left: asyncio.Task[None] | None = None

    async def __aenter__(self) -> _Gone:
        self._left = asyncio.create_task(self._wait())
        return self

    async def __aexit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        assert self._left is not None
        self._left.cancel()

    async def or_end(self, waits: Any) -> Any:
        """What `waits` gives. Raises Refused if the client leaves first."""
        assert self._left is not None
        task = asyncio.ensure_future(waits)
        try:
            await asyncio.wait([task, self._left], return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise Refused(499, "the client left", code="cancelled")
            return task.result()
        finally:
            if not task.done():
                task.cancel()

    async def _wait(self) -> None:
        while (await self._request.receive())["type"] != "http.disconnect":
            pass
