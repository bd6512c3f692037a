"""What a run ran with: a checkout has a revision, a copy of it only its source."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from pipelines.measure import environment


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    if shutil.which("git") is None:
        pytest.skip("no git")
    (tmp_path / "videoprune").mkdir()
    (tmp_path / "videoprune" / "a.py").write_text("a = 1\n")
    monkeypatch.setattr(environment, "_ROOT", tmp_path)
    return tmp_path


def git(folder, *args):
    name = ["-c", "user.name=a", "-c", "user.email=a@b"]
    done = subprocess.run(
        ["git", "-C", str(folder), *name, *args], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_the_revision_says_where_files_differ(checkout):
    assert environment.revision() is None
    git(checkout, "init")
    git(checkout, "add", ".")
    git(checkout, "commit", "-m", "first")
    commit = git(checkout, "rev-parse", "HEAD")
    assert environment.revision() == commit
    (checkout / "videoprune" / "a.py").write_text("a = 2\n")
    assert environment.revision() == f"{commit}-changed"


def test_other_code_has_another_digest(checkout):
    before = environment.source_digest()
    assert environment.source_digest() == before
    (checkout / "videoprune" / "a.py").write_text("a = 2\n")
    assert environment.source_digest() != before
