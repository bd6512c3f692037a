"""`/ws/streams/{name}`: a viewer comes, talks, and goes, is too slow, or is gone without a word."""

from __future__ import annotations

import asyncio
import json

from fastapi import APIRouter, WebSocket
from starlette.websockets import WebSocketDisconnect

from pipelines.stream.guard import PROTOCOL
from pipelines.stream.limits import Limits
from pipelines.stream.refused import Refused
from pipelines.stream.service import Service
from pipelines.stream.streams import NAME
from pipelines.stream.viewer import Viewer

_TRY_AGAIN, _POLICY = 1013, 1008
_MISTAKES = 50  # of one viewer, after which it is let go


def viewer_routes(service: Service) -> APIRouter:
    routes = APIRouter()

    @routes.websocket("/ws/streams/{name}")
    async def view(socket: WebSocket, name: str) -> None:
        offered = PROTOCOL in socket.scope.get("subprotocols", ())
        await socket.accept(subprotocol=PROTOCOL if offered else None)
        if service.viewers >= service.limits.viewers:
            await socket.close(_TRY_AGAIN, f"{service.viewers} viewers; allowed: {service.limits.viewers}")
            return
        if not NAME.fullmatch(name):
            await socket.close(_POLICY, "name; allowed: letters, digits, - and _")
            return
        service.viewers += 1
        viewer = Viewer(service, name)
        try:
            await _talk(socket, viewer, service.limits)
        finally:
            service.viewers -= 1
            await viewer.close()

    return routes


async def _talk(socket: WebSocket, viewer: Viewer, limits: Limits) -> None:
    """Until either side ends it."""
    viewer.join()
    tasks = [
        asyncio.create_task(_hear(socket, viewer)),
        asyncio.create_task(_tell(socket, viewer, limits)),
    ]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    except WebSocketDisconnect:
        return
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _hear(socket: WebSocket, viewer: Viewer) -> None:
    mistakes = 0
    while mistakes < _MISTAKES:
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            return
        data, text = message.get("bytes"), message.get("text")
        try:
            if data is not None:
                await viewer.picture(data)
            elif text is not None:
                await viewer.event(text)
        except Refused as refused:
            mistakes += 1
            viewer.refuse(refused)
    await socket.close(_POLICY, f"{_MISTAKES} mistakes")


async def _tell(socket: WebSocket, viewer: Viewer, limits: Limits) -> None:
    while True:
        for message in await viewer.news():
            text = json.dumps(message)
            try:
                async with asyncio.timeout(limits.send_seconds):
                    await socket.send_text(text)
            except TimeoutError:
                await socket.close(_TRY_AGAIN, "too slow")
                return
