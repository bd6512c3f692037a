"""What a video_url or image_url of the network holds, without a way into this machine's own network.

The name is looked up once and what was looked at is what is connected to; each redirect is looked at likewise.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import IO
from urllib.parse import urljoin, urlsplit

from pipelines.stream.limits import Limits
from pipelines.stream.refused import Refused

_REDIRECTS = 5
_CHUNK = 1 << 16
_PORTS = {"http": 80, "https": 443}
# IPv6 addresses that lead to IPv4 ones, whatever these are: NAT64, 6to4, Teredo; mapped ones are looked at apart.
_TUNNELS = tuple(
    ipaddress.ip_network(net) for net in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32", "::/96")
)
_HEADERS = {"User-Agent": "videoprune", "Accept": "*/*", "Accept-Encoding": "identity", "Connection": "close"}


@dataclass(frozen=True)
class Target:
    """addresses: of the host, looked up and looked at."""

    https: bool
    host: str
    port: int
    path: str
    addresses: tuple[str, ...]


class Fetcher:
    """private: whether addresses of this machine and its network are allowed."""

    def __init__(self, limits: Limits, *, private: bool = False) -> None:
        self._limits, self._private = limits, private
        self._context = ssl.create_default_context()

    def __call__(self, url: str, file: IO[bytes]) -> None:
        """Write what the URL gives into `file`. Raises Refused, which says no more of a private host than its name."""
        until = time.monotonic() + self._limits.fetch_seconds
        for _ in range(1 + _REDIRECTS):
            target = self.target(url)
            with self._response(target, until) as response:
                if response.status in (301, 302, 303, 307, 308):
                    url = urljoin(url, response.headers.get("Location", ""))
                    continue
                if response.status != 200:
                    raise _refused(f"{target.host} answered {response.status}; allowed: 200")
                self._copy(response, file, until)
                return
        raise _refused(f"over {_REDIRECTS} redirects; allowed: up to that")

    def target(self, url: str) -> Target:
        """Raises Refused for what must not be connected to."""
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
        except ValueError:
            host, port, parts = "", None, urlsplit("")
        if parts.scheme not in _PORTS or not host or not url.isprintable() or " " in url:
            raise _refused("no http or https address with a host; allowed: those")
        if parts.username is not None or parts.password is not None:
            raise _refused("a user or password in it; allowed: addresses without")
        port = _PORTS[parts.scheme] if port is None else port
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            raise _refused(f"{host[:80]} is not known; allowed: names that can be looked up") from None
        addresses = tuple(dict.fromkeys(str(entry[4][0]) for entry in found))
        if not self._private and not all(is_public(a) for a in addresses):
            raise _refused(
                f"{host[:80]} is not a public address; allowed: those, or start with --allow-private"
            )
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return Target(parts.scheme == "https", host, port, path, addresses)

    @contextmanager
    def _response(self, target: Target, until: float) -> Iterator[http.client.HTTPResponse]:
        connection = _Pinned(target, self._context, max(0.1, until - time.monotonic()))
        # A server that sends a byte now and then would keep each single wait short.
        ends = threading.Timer(max(0.1, until - time.monotonic()), connection.cut)
        ends.daemon = True
        ends.start()
        try:
            with closing(connection):
                connection.request("GET", target.path, headers=_HEADERS)
                yield connection.getresponse()
        except (OSError, http.client.HTTPException, UnicodeError) as error:
            late = time.monotonic() > until - 0.05
            why = f"no whole answer within {self._limits.fetch_seconds:g} s" if late else type(error).__name__
            raise _refused(f"{target.host} did not answer ({why}); allowed: servers that do") from None
        finally:
            ends.cancel()

    def _copy(self, response: http.client.HTTPResponse, file: IO[bytes], until: float) -> None:
        total, most = 0, self._limits.fetch_bytes
        if (response.length or 0) > most:
            raise _refused(f"{response.length} bytes; allowed: {most}", status=413)
        while data := response.read1(_CHUNK):
            total += len(data)
            if total > most:
                raise _refused(f"over {most} bytes; allowed: up to that", status=413)
            if time.monotonic() > until:
                raise TimeoutError
            file.write(data)
        if response.length:
            raise http.client.IncompleteRead(b"", response.length)


class _Pinned(http.client.HTTPConnection):
    """Connects to the addresses that were looked at, whatever the name means by now."""

    def __init__(self, target: Target, context: ssl.SSLContext, seconds: float) -> None:
        super().__init__(target.host, target.port, timeout=seconds)
        self._target, self._context = target, context

    def connect(self) -> None:
        error: OSError = OSError("no address")
        for address in self._target.addresses:
            try:
                self.sock = socket.create_connection((address, self._target.port), self.timeout)
                break
            except OSError as failed:
                error = failed
        else:
            raise error
        if self._target.https:
            self.sock = self._context.wrap_socket(self.sock, server_hostname=self._target.host)

    def cut(self) -> None:
        """End what waits for the other side."""
        sock = self.sock
        if sock is not None:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                return


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the public Internet, itself and what it leads to."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and (ip.ipv4_mapped or any(ip in net for net in _TUNNELS)):
        return False
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified)


def _refused(why: str, status: int = 400) -> Refused:
    return Refused(status, f"url: {why}", code="invalid_url")
