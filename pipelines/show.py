"""`videoprune show`: a video of which tokens survive each stage: the encoders, fusion, the LLM's last layer."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from pipelines.arguments import Commands, add_model, add_prune, add_video, check_video, command, count

_REPEAT = 10


def add(commands: Commands) -> None:
    text = "Draw which tokens survive each stage into a video."
    show = command(commands, "show", text, run, overrides=True)
    add_video(show)
    show.add_argument("--out", default="overlay.mp4", metavar="FILE", help="(default: overlay.mp4)")
    add_prune(show)
    show.add_argument(
        "--question",
        default="List the objects.",
        help="what the LLM chooses its tokens by (default: List the objects.)",
    )
    show.add_argument("--rate", type=count, default=1, metavar="N", help="frames a second (default: 1)")
    add_model(show)


def run(args: argparse.Namespace, overrides: Sequence[str]) -> int:
    """Raises VideoError if the video gave no frame, and ValueError for a mistake."""
    check_video(args.video)

    from pipelines.configuring import load_prune
    from pipelines.measure.pictures import pictures, stage_marks
    from videoprune.engine import Engine
    from videoprune.video import Reader, Sampling
    from videoprune.video.write import write_mp4

    engine = Engine(args.model, load_prune(args.prune, overrides), device=args.device)
    sampling = Sampling(max_frames=args.frames or engine.num_frames)
    with Reader() as reader:
        frames = reader.read(args.video, sampling, size=engine.frame_size)
        clear = reader.read(args.video, sampling)  # the same frames at their own size, to draw on
    answer = engine.answer(engine.encode([frames], survivors=True), [args.question])[0]
    out = Path(args.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    encoder = write_mp4(pictures(clear, answer.trace), out, rate=args.rate, repeat=_REPEAT)
    for stage, marks in stage_marks(answer.trace, len(frames)).items():
        counts = ", ".join(f"{name} {int(m.sum())} of {m.size}" for name, m in marks.items())
        print(f"{stage}: {counts}")
    print(f"answer: {answer.text or '(the model said nothing)'}")
    print(f"{out}: {len(frames)} frames, {encoder}")
    return 0
