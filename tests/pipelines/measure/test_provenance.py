"""Reports say on which clips choices were made, and whether their figures are of others."""

from __future__ import annotations

from pathlib import Path

from pipelines.measure.provenance import CHOICES, REPORT_SEED, chosen_on, clips_line, seed_of


def test_the_seed_of_reports_is_none_of_those_that_choices_were_made_on():
    assert REPORT_SEED not in {c.seed for c in CHOICES}
    assert clips_line(REPORT_SEED).endswith("on which no choice was made")
    for choice in CHOICES:
        assert "on which choices were made" in clips_line(choice.seed)
        assert f"{choice.what}: seed {choice.seed}, first {choice.clips} clips" in chosen_on()


def test_a_folder_says_its_seed(clips: Path, tmp_path: Path):
    assert seed_of(clips) == 0
    assert seed_of(tmp_path) is None
    assert "does not say its seed" in clips_line(None)
