"""What may be opened as a live source, and how FFmpeg is asked to open it.

A URL may hold a password. It is in `Address.target` alone; whatever is shown to anyone is `Address.name`, or went
through `Address.hide`.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import unquote, urlsplit

from videoprune.video.scan import check_file

Kind = Literal["rtsp", "http", "camera", "file"]

ALLOWED = "rtsp://, rtsps://, http://, https://, /dev/videoN, v4l2:/dev/..., or the path of a video file"
_SCHEMES: dict[str, Kind] = {"rtsp": "rtsp", "rtsps": "rtsp", "http": "http", "https": "http"}
_CAMERA = re.compile(r"(?:v4l2:(?=/dev/[\w./:+-]+$)|(?=/dev/video\d+$))(/dev/(?!.*\.\.).+)$")
_LONGEST = 4096  # characters of a URL
# FFmpeg's protocols and demuxers that each kind may lead to. A playlist from the network cannot name local files, and
# no file can name others.
_NET = "tcp,tls,udp,rtp,srtp,crypto"
# fpsprobesize: FFmpeg would hold back twenty frames to guess a rate that nobody asks for.
_OPTIONS: dict[Kind, dict[str, str]] = {
    "rtsp": {
        "protocol_whitelist": f"rtsp,rtsps,http,https,{_NET}",
        "rtsp_flags": "prefer_tcp",
        "fpsprobesize": "0",
    },
    "http": {"protocol_whitelist": f"http,https,httpproxy,{_NET}", "fpsprobesize": "0"},
    "camera": {},
    "file": {"protocol_whitelist": "file"},
}
# Files that only name others.
PLAYLISTS = ("hls", "concat", "dash", "imf", "sdp")


@dataclass(frozen=True)
class Address:
    """target: for FFmpeg, secrets and all. name: for people. format: FFmpeg's demuxer; "": it looks itself."""

    kind: Kind
    target: str = field(repr=False)
    name: str

    @property
    def format(self) -> str:
        return "v4l2" if self.kind == "camera" else ""

    @property
    def options(self) -> dict[str, str]:
        return dict(_OPTIONS[self.kind])

    def hide(self, text: str) -> str:
        """`text` without the user, the password and the query of the URL, as they are or decoded."""
        if self.target == self.name:
            return text
        parts = urlsplit(self.target)
        text = text.replace(self.target, self.name)
        secrets = {parts.netloc.rpartition("@")[0], parts.password or "", parts.username or "", parts.query}
        for secret in sorted({s for part in secrets for s in (part, unquote(part))}, key=len, reverse=True):
            if secret:  # as a word of its own: a user named `a` is no reason to blot out every a
                text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", "***", text)
        return text


def parse_address(url: str | os.PathLike[str]) -> Address:
    """Raises ValueError for what is no source, and VideoError (a ValueError) for a file that cannot be read."""
    text = os.fspath(url)
    if not isinstance(text, str) or not text or len(text) > _LONGEST or not text.isprintable():
        raise ValueError(f"url: empty, over {_LONGEST} characters, or not printable; allowed: {ALLOWED}")
    if camera := _CAMERA.match(text):
        return Address("camera", camera[1], camera[1])
    scheme, colon, _ = text.partition(":")
    if colon and scheme.lower() in _SCHEMES and not os.path.exists(text):
        return _network(text)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", text) and not os.path.exists(text):
        raise ValueError(f"url: the scheme {scheme!r} is not read; allowed: {ALLOWED}")
    check_file(text)
    path = os.path.abspath(text)  # FFmpeg would take a name such as `concat:a` for a protocol
    return Address("file", path, path)


def _network(text: str) -> Address:
    """Nothing of `text` may be in the message: a password may stand where it does not belong."""
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or " " in text or not text.startswith(f"{text.partition(':')[0]}://"):
        raise ValueError(f"url: no host or no valid port in it, or a space; allowed: {ALLOWED}")
    scheme = parts.scheme.lower()
    name = f"{scheme}://{f'[{host}]' if ':' in host else host}{f':{port}' if port else ''}{parts.path}"
    target = scheme + text[len(scheme) :]
    return Address(_SCHEMES[scheme], target, name)
