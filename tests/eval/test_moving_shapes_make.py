"""Making and loading a MovingShapes folder: real files, deterministic, resumable, nothing lost in silence."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from videoprune.eval.benchmarks.moving_shapes import make
from videoprune.eval.benchmarks.moving_shapes.load import load
from videoprune.eval.benchmarks.moving_shapes.make import clip_frames, make_benchmark
from videoprune.eval.benchmarks.moving_shapes.plan import plan_clip
from videoprune.eval.benchmarks.moving_shapes.render import render

ARGUMENTS = {"clips": 4, "seed": 7, "size": 64, "fps": 5}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_benchmark(tmp_path_factory.mktemp("made") / "ms", workers=1, **ARGUMENTS)


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "copy"))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def decode(path: Path) -> tuple[np.ndarray, list[float]]:
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.name == "h264"
        assert container.streams.video[0].codec_context.pix_fmt == "yuv420p"
        found = [(f.to_ndarray(format="rgb24"), float(f.time)) for f in container.decode(video=0)]
    return np.stack([pixels for pixels, _ in found]), [time for _, time in found]


def test_folder_holds_what_was_asked(made: Path) -> None:
    stems = [f"moving_shapes_{i:03d}" for i in (1, 2, 3, 4)]
    assert sorted(contents(made)) == sorted(
        ["benchmark.json", "test.jsonl", *(f"data/{s}.mp4" for s in stems)]
    )
    note = json.loads((made / "benchmark.json").read_text())
    assert {k: note[k] for k in ("format", "seed", "clips", "size", "fps")} == {"format": 1, **ARGUMENTS}
    rows = [json.loads(line) for line in (made / "test.jsonl").read_text().splitlines()]
    assert rows == [row for i in range(4) for row in plan_clip(i, 7).rows]


def test_decoded_frames_are_the_drawn_frames(made: Path) -> None:
    for index, seconds in enumerate((4, 8, 16, 4)):
        drawn = np.concatenate(list(clip_frames(plan_clip(index, 7).scene, 64, 5)))
        decoded, times = decode(made / "data" / f"moving_shapes_{index + 1:03d}.mp4")
        assert decoded.shape == drawn.shape == (5 * seconds, 64, 64, 3)
        assert times == pytest.approx([i / 5 for i in range(5 * seconds)], abs=1e-6)
        error = np.abs(decoded.astype(float) - drawn).mean(axis=(1, 2, 3))  # (T,)
        assert error.max() < 12, "codec error, noise of 6 grey levels included"
        assert abs((decoded.astype(float) - drawn).mean()) < 1.5
        for shift in (-1, 1):  # each frame is nearer to its own drawing than to its neighbour's
            assert error.mean() < np.abs(decoded.astype(float) - np.roll(drawn, shift, axis=0)).mean() - 1


def test_frames_do_not_depend_on_the_chunk_and_match_render() -> None:
    scene = plan_clip(0, 3).scene
    whole = np.concatenate(list(clip_frames(scene, 48, 5, chunk=1000)))
    parts = list(clip_frames(scene, 48, 5, chunk=7))
    assert [len(p) for p in parts] == [7, 7, 6]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    clean, _ = render(scene, np.arange(20) / 5, 48, noise=0.0)
    inner = (clean > 30).all(-1) & (clean < 225).all(-1)  # where nothing is clipped
    noise = (whole.astype(float) - clean)[inner]
    assert abs(noise.mean()) < 0.2
    assert noise.std() == pytest.approx(6.0, abs=0.2)
    assert len({frame.tobytes() for frame in (whole.astype(int) - clean)}) == 20, "noise must not repeat"


def test_same_seed_same_bytes_also_with_processes(made: Path, tmp_path: Path) -> None:
    again = make_benchmark(tmp_path / "again", workers=2, **ARGUMENTS)
    assert contents(again) == contents(made)


def test_finished_folder_is_left_alone(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {p: p.stat().st_mtime_ns for p in copy.rglob("*")}
    monkeypatch.setattr(make, "write_clip", lambda *a, **k: pytest.fail("wrote a clip again"))
    assert make_benchmark(copy, **ARGUMENTS) == copy
    assert {p: p.stat().st_mtime_ns for p in copy.rglob("*")} == before


def test_half_written_folder_is_completed(made: Path, copy: Path) -> None:
    (copy / "data" / "moving_shapes_002.mp4").unlink()
    (copy / "test.jsonl").unlink()
    kept = (copy / "data" / "moving_shapes_003.mp4").stat().st_mtime_ns
    make_benchmark(copy, workers=1, **ARGUMENTS)
    assert contents(copy) == contents(made)
    assert (copy / "data" / "moving_shapes_003.mp4").stat().st_mtime_ns == kept


def test_a_clip_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(*args: object, **kwargs: object) -> Iterator[np.ndarray]:
        yield np.zeros((3, 64, 64, 3), np.uint8)
        raise OSError("disk full")

    monkeypatch.setattr(make, "clip_frames", breaks)
    with pytest.raises(OSError, match="disk full"):
        make_benchmark(tmp_path / "ms", workers=1, **ARGUMENTS)
    assert sorted(contents(tmp_path / "ms")) == ["benchmark.json"]


def test_other_benchmark_in_the_folder_is_refused(copy: Path) -> None:
    with pytest.raises(ValueError, match=r"holds another benchmark.*'seed': 7.*'seed': 8"):
        make_benchmark(copy, **(ARGUMENTS | {"seed": 8}))
    (copy / "benchmark.json").write_text("{")
    with pytest.raises(ValueError, match=r"benchmark\.json cannot be read"):
        make_benchmark(copy, **ARGUMENTS)
    (copy / "benchmark.json").unlink()
    with pytest.raises(ValueError, match=r"has data and test\.jsonl but no benchmark\.json"):
        make_benchmark(copy, **ARGUMENTS)


@pytest.mark.parametrize(
    "wrong", [{"seed": 1_000_000_000}, {"clips": 0}, {"size": 63}, {"size": 16}, {"fps": 0.5}, {"workers": 0}]
)
def test_impossible_arguments_are_refused_before_anything_is_written(
    wrong: dict[str, int], tmp_path: Path
) -> None:
    (name, value), *_ = wrong.items()
    with pytest.raises(ValueError, match=f"{name}={value}; allowed"):
        make_benchmark(tmp_path / "ms", **(ARGUMENTS | wrong))
    assert not (tmp_path / "ms").exists()


def test_load(made: Path) -> None:
    samples = load(made)
    assert [s.question_id for s in samples] == [f"{i:03d}-{k}" for i in range(1, 5) for k in (1, 2, 3)]
    rows = [row for i in range(4) for row in plan_clip(i, 7).rows]
    for sample, row in zip(samples, rows, strict=True):
        assert Path(sample.video).is_file()
        assert sample.question == row["question"]
        assert [f"{k}. {o}" for k, o in zip("ABCD", sample.options, strict=True)] == row["options"]
        assert sample.answer == row["answer"]
        assert sample.meta == {
            "category": row["sub_category"],
            "duration": row["duration"],
            "video_id": row["video_id"],
        }
    assert load(made, limit=5) == samples[:5]
    assert load(made, limit=99) == samples


def test_missing_video_keeps_its_samples(made: Path, copy: Path) -> None:
    (copy / "data" / "moving_shapes_002.mp4").unlink()
    assert [s.question_id for s in load(copy)] == [s.question_id for s in load(made)]


def test_wrong_folder_says_what_was_found(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"looked for test.jsonl and data/\*.mp4, found an empty folder"):
        load(tmp_path)
    for i in range(7):
        (tmp_path / f"f{i}").touch()
    with pytest.raises(ValueError, match="found f0, f1, f2, f3, f4 and 2 more"):
        load(tmp_path)
    with pytest.raises(ValueError, match="found no such folder"):
        load(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="found a file"):
        load(tmp_path / "f0")
    with pytest.raises(ValueError, match="limit=0; allowed"):
        load(tmp_path, limit=0)


def without(name: str) -> Callable[[dict], object]:
    return lambda row: {k: v for k, v in row.items() if k != name}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda row: [1], "columns of Video-MME"),
        (without("question"), "question=None"),
        (lambda row: row | {"videoID": ""}, "videoID=''"),
        (lambda row: row | {"answer": "E"}, "answer='E'; allowed: A, B, C, D"),
        (lambda row: row | {"answer": "AB"}, "answer='AB'"),
        (lambda row: row | {"options": row["options"][:3]}, "a list of four texts"),
        (lambda row: row | {"options": ["red", "blue", "green", "cyan"]}, "start with"),
        (lambda row: row | {"question_id": "001-1"}, "'001-1' appears twice"),
    ],
)
def test_broken_row_is_named_by_line(copy: Path, spoil: Callable[[dict], object], message: str) -> None:
    lines = (copy / "test.jsonl").read_text().splitlines()
    lines[4] = json.dumps(spoil(json.loads(lines[4])))
    (copy / "test.jsonl").write_text("\n".join(lines))
    with pytest.raises(ValueError, match=rf"test.jsonl, line 5: .*{message}"):
        load(copy)


def test_cut_line_and_empty_file_are_refused(copy: Path) -> None:
    text = (copy / "test.jsonl").read_text()
    (copy / "test.jsonl").write_text(text[:-30])
    with pytest.raises(ValueError, match="line 12: "):
        load(copy)
    (copy / "test.jsonl").write_text("\n")
    with pytest.raises(ValueError, match="no rows"):
        load(copy)
