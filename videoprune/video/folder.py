"""Where the videos of a data set lie: a folder of this machine, or an address, which is listed once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol
from urllib.parse import quote, unquote

from videoprune.video.remote.address import Stored, file_system, is_remote, local_path, shown, stored

NAME = "{}"


class VideoFolder(Protocol):
    """Names are paths below it, with forward slashes. stored: what is known of remote files, by their paths."""

    stored: Mapping[str, Stored]

    def has_folder(self, name: str) -> bool: ...

    def has(self, name: str) -> bool: ...

    def path(self, name: str) -> str: ...


class LocalFolder:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stored: Mapping[str, Stored] = {}

    def has_folder(self, name: str) -> bool:
        return (self.folder / name).is_dir()

    def has(self, name: str) -> bool:
        return (self.folder / name).is_file()

    def path(self, name: str) -> str:
        return str(self.folder / name)


class RemoteFolder:
    """Raises ValueError for an address that cannot be listed, and for one without files."""

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/")
        names = _listed(address)
        self._folders = {str(parent) for name in names for parent in Path(name).parents}
        self.stored: Mapping[str, Stored] = {self.path(name): found for name, found in names.items()}

    def has_folder(self, name: str) -> bool:
        return str(Path(name)) in self._folders

    def has(self, name: str) -> bool:
        return self.path(name) in self.stored

    def path(self, name: str) -> str:
        return f"{self.address}/{quote(name) if _quotes(self.address) else name}".rstrip("/")


class NamedFolder:
    """An address with {} in the place of a video's name without its ending. Nothing is listed: any video is there."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.stored: Mapping[str, Stored] = {}

    def has_folder(self, name: str) -> bool:
        return not name

    def has(self, name: str) -> bool:
        return True

    def path(self, name: str) -> str:
        plain = name.rpartition(".")[0]
        return self.address.replace(NAME, quote(plain) if _quotes(self.address) else plain)


def video_folder(where: str) -> VideoFolder:
    """Of a path or an address. Raises ValueError for an address that cannot be used."""
    if not is_remote(where):
        return LocalFolder(Path(where))
    local = local_path(where)
    if local is not None:
        return LocalFolder(Path(local))
    if NAME in where:
        file_system(where)
        return NamedFolder(where)
    return RemoteFolder(where)


def _quotes(address: str) -> bool:
    return address.startswith(("http://", "https://"))


def _listed(address: str) -> dict[str, Stored]:
    """All files below an address by their names."""
    fs, root = file_system(address)
    try:
        found = fs.find(root, detail=True)
    except Exception as error:  # each library has its own
        why = f"{type(error).__name__}: {error}".replace(address, shown(address))
        raise ValueError(f"videos={shown(address)!r}: cannot be listed: {why}") from error
    before = root.rstrip("/") + "/"
    names = {n.removeprefix(before): stored(about) for n, about in found.items() if n.startswith(before)}
    if not names:
        raise ValueError(
            f"videos={shown(address)!r}: no files are listed there; allowed: a folder that its store lists, or an "
            f"address with {NAME} in the place of a video's name"
        )
    return {unquote(name): known for name, known in names.items()} if _quotes(address) else names
