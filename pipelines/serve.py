"""`videoprune serve`: live streams and a page to ask them, OpenAI's chat API, metrics."""

from __future__ import annotations

import argparse
import logging
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.arguments import Commands, add_model, add_prune, command, count

if TYPE_CHECKING:
    from pipelines.stream.server import Address
    from pipelines.stream.service import Service

_NEEDED = ("fastapi", "uvicorn", "websockets", "prometheus_client", "PIL")


def add(commands: Commands) -> None:
    text = "Serve a page and an API that answer questions about live streams."
    serve = command(commands, "serve", text, run, overrides=True)
    add_model(serve)
    add_prune(serve)
    serve.add_argument("--host", default="127.0.0.1", help="another one needs --token (default: 127.0.0.1)")
    serve.add_argument("--port", type=int, default=8000, help="0: any that is free (default: 8000)")
    serve.add_argument(
        "--source",
        action="append",
        default=[],
        metavar="[NAME=]URL",
        help="a stream to open: rtsp://, http(s)://, /dev/videoN or a file; several times",
    )
    serve.add_argument(
        "--demo", action="store_true", help="also a stream of moving shapes, made in a moment, over and over"
    )
    serve.add_argument("--token", default="", help="that clients must give, 8 characters or more")
    serve.add_argument(
        "--token-file",
        type=Path,
        metavar="FILE",
        help="that holds the token, so that no list of processes does",
    )
    serve.add_argument(
        "--tls", metavar="self-signed|CERT,KEY", help="serve https, which a camera elsewhere needs"
    )
    serve.add_argument(
        "--tls-folder",
        type=Path,
        metavar="DIR",
        help="where self-signed keeps its certificate (default: nowhere)",
    )
    serve.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="another name of this server; several times",
    )
    serve.add_argument("--allow-files", type=Path, metavar="DIR", help="whose files requests may name")
    serve.add_argument(
        "--allow-private", action="store_true", help="requests may name private addresses and cameras"
    )
    serve.add_argument("--fps", type=float, default=2.0, help="frames a second of each stream (default: 2)")
    serve.add_argument(
        "--max-visual-tokens", type=count, default=4096, metavar="N", help="held of a stream (default: 4096)"
    )
    serve.add_argument("--max-bytes", type=count, default=2**28, metavar="N", help="likewise (default: 2^28)")
    serve.add_argument("--streams", type=count, default=8, metavar="N", help="open at a time (default: 8)")
    serve.add_argument("--viewers", type=count, default=64, metavar="N", help="at a time (default: 64)")
    serve.add_argument(
        "--questions", type=count, default=2, metavar="N", help="answered at a time (default: 2)"
    )


def run(args: argparse.Namespace, overrides: Sequence[str]) -> int:
    """Until it is interrupted. Raises ValueError for a mistake."""
    check_installed()

    from pipelines.stream.film import write_film
    from pipelines.stream.server import is_loopback, listening, make_server

    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    with ExitStack() as stack:
        address = _address(args, stack)
        sock = stack.enter_context(listening(address))  # before a model is loaded for nothing
        service = _service(args, overrides, network=args.allow_private or is_loopback(args.host))
        server = make_server(service, address)
        try:
            for i, source in enumerate(args.source):
                name, url = _named(source, i)
                service.streams.open(name, url, trusted=True)
            if args.demo:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="videoprune-")))
                film = folder / "moving-shapes.mp4"
                write_film(film)
                service.streams.open("moving-shapes", str(film), trusted=True, loop=True)
        except BaseException:
            service.close()
            raise
        scheme = "https" if address.tls else "http"
        host = f"[{args.host}]" if ":" in args.host else args.host
        print(f"{scheme}://{host}:{sock.getsockname()[1]}/  (Ctrl-C ends it)", flush=True)
        with suppress(KeyboardInterrupt):  # how it is meant to end
            server.run(sockets=[sock])
    return 0


def check_installed() -> None:
    """Raises ValueError that says how to get what is missing."""
    from importlib.util import find_spec

    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise ValueError(f"serve needs {', '.join(missing)}: pip install 'videoprune[serve]'")


def _service(args: argparse.Namespace, overrides: Sequence[str], *, network: bool) -> Service:
    from pipelines.configuring import load_prune
    from pipelines.stream.limits import Limits
    from pipelines.stream.service import make_service
    from videoprune.engine import Engine
    from videoprune.stream import StreamConfig

    if args.allow_files is not None and not args.allow_files.is_dir():
        raise ValueError(f"allow-files={str(args.allow_files)!r}: no such folder")
    config = StreamConfig(max_visual_tokens=args.max_visual_tokens, max_bytes=args.max_bytes)
    engine = Engine(args.model, load_prune(args.prune, overrides), device=args.device)
    return make_service(
        engine,
        Path(args.model).name or args.model,
        Limits(streams=args.streams, viewers=args.viewers, questions=args.questions),
        config,
        fps=args.fps,
        files=args.allow_files,
        network=network,
        private=args.allow_private,
    )


def _address(args: argparse.Namespace, stack: ExitStack) -> Address:
    from pipelines.stream.server import Address
    from pipelines.stream.tls import certificate_files

    token = args.token_file.read_text().strip() if args.token_file else args.token
    tls = None
    if args.tls:
        folder = args.tls_folder or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="videoprune-"))
        )
        tls = certificate_files(args.tls, folder, [args.host, *args.allow_host])
    return Address(args.host, args.port, token, tuple(args.allow_host), tls)


def _named(source: str, number: int) -> tuple[str, str]:
    """`door=rtsp://...` or an address alone, which is called source-1 and so on."""
    from pipelines.stream.streams import NAME

    name, sign, url = source.partition("=")
    return (name, url) if sign and NAME.fullmatch(name) else (f"source-{number + 1}", source)
