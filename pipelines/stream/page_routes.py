"""The page's files, and how a browser gets past the token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse, JSONResponse

from pipelines.stream.chat_request import read_json
from pipelines.stream.guard import COOKIE
from pipelines.stream.refused import Refused
from pipelines.stream.service import Service

_FOLDER = Path(__file__).parent / "page"
_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_DAYS = 30


def page_routes(service: Service) -> APIRouter:
    routes = APIRouter()
    files = {path.name: path for path in sorted(_FOLDER.iterdir()) if path.suffix in _TYPES}

    @routes.get("/")
    def page() -> Response:
        return FileResponse(
            _FOLDER / "index.html", media_type="text/html", headers={"Cache-Control": "no-cache"}
        )

    @routes.get("/page/{name}")
    def part(name: str) -> Response:
        path = files.get(name)
        if path is None:
            raise Refused(404, f"{name[:80]!r}: no such file of the page; allowed: {', '.join(files)}")
        return FileResponse(path, media_type=_TYPES[path.suffix], headers={"Cache-Control": "no-cache"})

    @routes.post("/api/login")
    async def login(request: Request) -> Response:
        """The token becomes a cookie that no script can read."""
        token: Any = read_json(await request.body()).get("token")
        if not isinstance(token, str) or not token:
            raise Refused(400, "token: missing; allowed: that of --token", param="token")
        if service.guard is not None:
            service.guard.check_token(token, request.client.host if request.client else "")
        answer = JSONResponse({"ok": True})
        answer.set_cookie(
            COOKIE,
            token,
            max_age=_DAYS * 86_400,
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
        return answer

    return routes
