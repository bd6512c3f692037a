"""The running server: where it listens, with which certificate, until it is asked to end."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from pipelines.stream.app import make_app
from pipelines.stream.guard import Guard
from pipelines.stream.service import Service
from pipelines.stream.slow_heads import protocol

_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_BACKLOG = 128
_SHUTDOWN = 5  # seconds for answers that are being sent


@dataclass(frozen=True)
class Address:
    """token: "" for none, which another host than this machine does not allow. hosts: further names of the server.
    tls: certificate and key."""

    host: str = "127.0.0.1"
    port: int = 8000
    token: str = ""
    hosts: tuple[str, ...] = ()
    tls: tuple[Path, Path] | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.port < 2**16:
            raise ValueError(f"port={self.port}; allowed: 0 (any that is free) to 65535")
        if self.token and (len(self.token) < 8 or not self.token.isascii() or not self.token.isprintable()):
            raise ValueError("token: too short or with strange characters; allowed: 8 or more of ASCII")
        if any(c in self.token for c in ' ",;\\'):
            raise ValueError("token: a space, quote, comma, semicolon or backslash; allowed: other ASCII")
        if not is_loopback(self.host) and not self.token:
            raise ValueError(
                f"host={self.host!r} lets others in; allowed: --token with a secret beside it, or --host 127.0.0.1"
            )


def is_loopback(host: str) -> bool:
    return host in _LOOPBACK or host.startswith("127.")


def make_server(service: Service, address: Address) -> uvicorn.Server:
    """Not started yet. Its logs hold no addresses and no headers."""
    limits = service.limits
    guard = Guard(make_app(service), limits, token=address.token, hosts=(address.host, *address.hosts))
    service.guard = guard
    config = uvicorn.Config(
        guard,
        host=address.host,
        port=address.port,
        http=protocol(limits.header_seconds),
        ws="websockets-sansio",
        ws_max_size=max(limits.frame_bytes, limits.event_bytes),
        ws_per_message_deflate=False,  # pictures do not get smaller, and a bomb stays small
        ws_ping_interval=limits.ping_seconds,
        ws_ping_timeout=limits.ping_seconds,
        access_log=False,
        log_level="error",
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=_SHUTDOWN,
        limit_concurrency=limits.connections,
        ssl_certfile=None if address.tls is None else address.tls[0],
        ssl_keyfile=None if address.tls is None else str(address.tls[1]),
    )
    return uvicorn.Server(config)


def listening(address: Address) -> socket.socket:
    """A socket that listens. Raises ValueError where that is not possible."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((address.host, address.port))
        sock.listen(_BACKLOG)  # whoever reads the address may connect at once
    except OSError as error:
        sock.close()
        where = f"host={address.host!r}, port={address.port}"
        raise ValueError(
            f"{where}: {error.strerror or error}; allowed: an address of this machine that is free"
        ) from None
    return sock
