"""`/api/streams`: what is open, one more, one less, pictures of what was shown."""

from __future__ import annotations

import asyncio
import math
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict

from pipelines.stream.chat_request import read_json, validated
from pipelines.stream.refused import Refused
from pipelines.stream.service import Service


class NewStream(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    name: str
    url: str


def stream_routes(service: Service) -> APIRouter:
    routes = APIRouter()

    @routes.get("/api/streams")
    def streams() -> dict[str, Any]:
        return {
            "model": service.model,
            "fps": service.streams.fps,
            "frame_bytes": service.limits.frame_bytes,
            "files": service.streams.files is not None,
            "network": service.streams.network,
            "streams": [feed.state() for feed in service.streams.all()],
        }

    @routes.post("/api/streams", status_code=201)
    async def open_stream(request: Request) -> dict[str, Any]:
        new = validated(NewStream, read_json(await request.body()))
        try:
            feed = await asyncio.to_thread(service.streams.open, new.name, new.url)
        except ValueError as error:
            raise Refused(400, str(error), code="invalid_url", param="url") from None
        return feed.state()

    @routes.get("/api/streams/{name}")
    def stream(name: str) -> dict[str, Any]:
        return service.streams.get(name).state()

    @routes.delete("/api/streams/{name}", status_code=204)
    async def close_stream(name: str) -> None:
        await asyncio.to_thread(service.streams.close, name)

    @routes.get("/api/streams/{name}/thumbnail")
    def thumbnail(name: str, at: str) -> Response:
        feed = service.streams.get(name)
        try:
            second = float(at)
        except ValueError:
            second = math.nan
        if not math.isfinite(second):
            raise Refused(400, f"at={at[:20]!r}; allowed: a second of the stream", param="at")
        found = feed.thumbnails.nearest(second)
        if found is None:
            raise Refused(404, f"stream {name}: no picture yet", code="no_frame")
        headers = {"X-Seconds": f"{found[0]:.3f}", "Cache-Control": "no-store"}
        return Response(found[1], media_type="image/jpeg", headers=headers)

    return routes
