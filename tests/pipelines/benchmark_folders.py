"""A small folder of each published benchmark, with real clips under its real file names."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from tests.eval.benchmarks import made

SRT = '1\n00:00:00,000 --> 00:10:00,000\n<font color="white" size=".72c">a line</font>\n'


def _copier(clips: Path) -> Callable[[int, Path], None]:
    found = sorted((clips / "data").glob("*.mp4"))

    def put(i: int, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(found[i % len(found)], path)

    return put


def videomme(folder: Path, clips: Path) -> Path:
    """Three videos of three questions; the last has no video, the second no subtitles."""
    put = _copier(clips)
    made.write_videomme(folder, made.videomme_rows(1))
    put(0, folder / "data" / "made_001.mp4")
    put(1, folder / "data" / "made_002.mkv")
    (folder / "subtitle").mkdir()
    (folder / "subtitle" / "made_001.srt").write_text(SRT)
    return folder


def nextqa(folder: Path, clips: Path) -> Path:
    made.write_nextqa(folder, made.nextqa_rows(9, 3))
    return _next_videos(folder, clips)


def nextoe(folder: Path, clips: Path) -> Path:
    made.write_nextoe(folder, made.nextoe_rows(9, 3))
    return _next_videos(folder, clips)


def msvd(folder: Path, clips: Path) -> Path:
    put = _copier(clips)
    rows = [row | {"video_id": 1451 + i // 3} for i, row in enumerate(made.msvd_rows(9))]
    made.write_msvd(folder, rows)
    put(0, folder / "YouTubeClips" / "clip_1451_1_9.avi")
    put(1, folder / "YouTubeClips" / "vid1452.avi")
    put(2, folder / "YouTubeClips" / "clip_1453_1_9.mp4")
    return folder


def activitynet(folder: Path, clips: Path) -> Path:
    put = _copier(clips)
    made.write_activitynet(folder, 30)
    for i, end in enumerate(("mp4", "mkv", "webm")):
        put(i, folder / "videos" / f"v_Aa_-000000{i}.{end}")
    return folder


def _next_videos(folder: Path, clips: Path) -> Path:
    put = _copier(clips)
    names = json.loads((folder / "map_vid_vidorID.json").read_text())
    for i, name in enumerate(names.values()):
        put(i, folder / "NExTVideo" / f"{name}.mp4")
    return folder


FOLDERS = {f.__name__: f for f in (videomme, nextqa, nextoe, msvd, activitynet)}
