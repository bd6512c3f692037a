"""Who may ask: the host that was meant, the page's own origin, the token; and how much a request may send.

Pure ASGI, so that it stands before WebSockets too. Nothing here is logged: a token would be in it.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import socket
import time
from collections import deque
from collections.abc import Iterable, Mapping
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipelines.stream.limits import Limits
from pipelines.stream.refused import Refused

COOKIE = "videoprune_token"
PROTOCOL = "videoprune"  # of WebSockets; a second one, `videoprune.token.` and the token, is a secret
PROTOCOL_TOKEN = "videoprune.token."
_OPEN = ("/", "/healthz", "/api/login")  # without a token, beside the page's own files
_PAGE = "/page/"
_MINUTE = 60.0
_MOST_ADDRESSES = 4096  # whose wrong tokens are remembered


class Guard:
    """hosts: names by which the server may be called, beside IP addresses and those of this machine.

    A name that is no address may be anybody's, pointed at this machine to get round the browser's rules (DNS
    rebinding). token: "" for none.
    """

    def __init__(self, app: ASGIApp, limits: Limits, *, token: str = "", hosts: Iterable[str] = ()) -> None:
        self._app, self._limits = app, limits
        self._token = token.encode()
        self._hosts = {"localhost", socket.gethostname().lower(), *(h.lower() for h in hosts)}
        self._wrong: dict[str, deque[float]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in scope["headers"]}
        try:
            self._check(scope, headers)
            if scope["type"] == "http":
                receive = _Bounded(receive, headers, self._limits)
        except Refused as refused:
            # A WebSocket is refused before it is one, with a status of HTTP.
            await JSONResponse(refused.as_dict(), refused.status, refused.headers)(scope, receive, send)
            return
        await self._app(scope, receive, _secured(send) if scope["type"] == "http" else send)

    def _check(self, scope: Scope, headers: Mapping[str, str]) -> None:
        host = headers.get("host", "")
        if not self._is_ours(host):
            raise Refused(
                421,
                f"Host {host[:80]!r} is not this server; allowed: its address, or --allow-host NAME",
                code="bad_host",
            )
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            raise Refused(
                403, f"Origin {origin[:80]!r}: another site; allowed: this page itself", code="bad_origin"
            )
        if headers.get("sec-fetch-site") == "cross-site" and (
            scope["type"] == "websocket" or scope["method"] not in ("GET", "HEAD")
        ):
            raise Refused(403, "asked by another site; allowed: this page itself", code="bad_origin")
        path = scope["path"]
        if self._token and path not in _OPEN and not path.startswith(_PAGE):
            client = (scope.get("client") or ("", 0))[0]
            self.check_token(given_token(headers), client)

    def _is_ours(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if name in self._hosts:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def check_token(self, token: str, client: str) -> None:
        """Raises Refused for a wrong token, and for one more of a client that has tried too many."""
        if not self._token:
            return
        now = time.monotonic()
        wrong = self._wrong.get(client, deque())
        while wrong and now - wrong[0] > _MINUTE:
            wrong.popleft()
        if len(wrong) >= self._limits.bad_tokens:
            raise Refused(
                429, "token: too many wrong ones; try again in a minute", code="rate_limit_exceeded", retry=60
            )
        if hmac.compare_digest(token.encode("utf-8", "surrogatepass"), self._token):
            return
        if token:  # none at all is no guess
            wrong.append(now)
            if len(self._wrong) >= _MOST_ADDRESSES:
                self._wrong.pop(next(iter(self._wrong)))
            self._wrong[client] = wrong
        raise Refused(401, "token: missing or wrong; allowed: that of --token", code="invalid_api_key")


def given_token(headers: Mapping[str, str]) -> str:
    """Of `Authorization: Bearer`, of the page's cookie, or of a WebSocket's second protocol."""
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    for protocol in headers.get("sec-websocket-protocol", "").split(","):
        if protocol.strip().startswith(PROTOCOL_TOKEN):
            return protocol.strip()[len(PROTOCOL_TOKEN) :]
    try:
        cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        cookie = None
    return cookie.value if cookie else ""


class _Bounded:
    """A request's body, up to so many bytes within so many seconds; else it raises Refused, within the application."""

    def __init__(self, receive: Receive, headers: Mapping[str, str], limits: Limits) -> None:
        self._receive, self._limits = receive, limits
        self._got, self._whole = 0, False
        self._until = time.monotonic() + limits.body_seconds
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length[:20]) > limits.body_bytes:
            raise self._large()

    async def __call__(self) -> Message:
        if self._whole:
            return await self._receive()
        try:
            async with asyncio.timeout(max(0.001, self._until - time.monotonic())):
                message = await self._receive()
        except TimeoutError:
            said = f"body: not whole after {self._limits.body_seconds:g} seconds; send it faster"
            raise Refused(408, said, code="timeout") from None
        if message["type"] == "http.request":
            self._got += len(message.get("body", b""))
            self._whole = not message.get("more_body", False)
            if self._got > self._limits.body_bytes:
                raise self._large()
        return message

    def _large(self) -> Refused:
        return Refused(413, f"body: too large; allowed: {self._limits.body_bytes} bytes", code="too_large")


_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_SECURITY = (
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(self), microphone=(), geolocation=()"),
)


def _secured(send: Send) -> Send:
    async def sends(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", []), *_SECURITY]}
        await send(message)

    return sends
