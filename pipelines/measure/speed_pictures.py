"""Pictures of a speed report: which tokens of one frame survive each stage, method by method."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

from pipelines.measure.report.rows import BASELINE
from pipelines.measure.speed_plan import Setting
from pipelines.run.stages import ClipItem, with_prune
from pipelines.show import pictures, survivors
from videoprune.engine import AnyEngine
from videoprune.video import Reader, Sampling, VideoError

_MOST = 8  # pictures


def kept_pictures(
    engine: AnyEngine, settings: Sequence[Setting], item: ClipItem, *, retain: float = 0.25
) -> list[dict[str, str]]:
    """The middle frame of a clip under each method at about `retain`: method, title, PNG as base64."""
    import matplotlib.image

    sampling = Sampling(max_frames=engine.num_frames)
    try:
        with Reader() as reader:
            frames = reader.read(item.video, sampling, size=engine.frame_size)
            clear = reader.read(item.video, sampling)
    except VideoError:
        return []
    near = min((s.retain for s in settings if s.method != BASELINE), key=lambda r: abs(r - retain), default=0)
    found = []
    for setting in [s for s in settings if s.retain == near][:_MOST]:
        seen = survivors(with_prune(engine, setting.prune), frames, item.samples[0].question)
        image = list(pictures(clear, seen))[len(frames) // 2]
        data = io.BytesIO()
        matplotlib.image.imsave(data, image, format="png")
        title = item.samples[0].question
        found.append(
            {
                "method": setting.label,
                "title": title,
                "png_base64": base64.b64encode(data.getvalue()).decode(),
            }
        )
    return found
