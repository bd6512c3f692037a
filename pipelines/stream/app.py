"""The web application around one service."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from pipelines.measure.memory import give_back
from pipelines.stream.chat import chat_routes
from pipelines.stream.page_routes import page_routes
from pipelines.stream.refused import Refused
from pipelines.stream.service import Service
from pipelines.stream.streams_api import stream_routes
from pipelines.stream.websocket import viewer_routes

_log = logging.getLogger(__name__)
_TIDY = 1.0  # seconds between looks for streams that nobody comes back to
_GIVE_BACK = 60.0  # seconds after which freed memory goes back to the system


def make_app(service: Service) -> FastAPI:
    """Closes the service when it ends."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        tidying = asyncio.create_task(_tidy(service))
        try:
            yield
        finally:
            tidying.cancel()
            with suppress(asyncio.CancelledError):
                await tidying
            await asyncio.to_thread(service.close)

    app = FastAPI(title="videoprune", lifespan=lifespan, openapi_url=None, docs_url=None, redoc_url=None)
    app.include_router(chat_routes(service))
    app.include_router(stream_routes(service))
    app.include_router(viewer_routes(service))
    app.include_router(page_routes(service))

    @app.get("/healthz")
    async def healthz() -> Response:
        reason = await service.health.reason()
        return JSONResponse({"ok": not reason, "reason": reason}, 503 if reason else 200)

    @app.get("/metrics")
    def metrics() -> Response:
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> Response:
        return JSONResponse(error.as_dict(), error.status, error.headers)

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> Response:
        said = Refused(error.status_code, f"{request.method} {request.url.path[:80]}: {error.detail}")
        return JSONResponse(said.as_dict(), error.status_code, dict(error.headers or {}))

    @app.exception_handler(RequestValidationError)
    async def missing(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        said = Refused(400, f"{'.'.join(map(str, first['loc']))}: {first['msg']}", code="invalid_value")
        return JSONResponse(said.as_dict(), 400)

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:
        said = f"the server failed ({type(error).__name__}); its log says more"
        return JSONResponse(Refused(500, said, code="failed").as_dict(), 500)

    return app


async def _tidy(service: Service) -> None:
    last = time.monotonic()
    while True:
        await asyncio.sleep(_TIDY)
        try:
            await asyncio.to_thread(service.streams.tidy)
        except Exception:
            _log.exception("streams could not be tidied")
        if time.monotonic() - last >= _GIVE_BACK:  # else the C library holds some more every hour
            await asyncio.to_thread(give_back)
            last = time.monotonic()
