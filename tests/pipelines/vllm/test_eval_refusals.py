"""What `eval --engine vllm` cannot do is said in a sentence, before videos are made and models are loaded."""

from __future__ import annotations

import importlib.util

import pytest

from pipelines.cli import main

EVAL = ["eval", "moving-shapes", "--engine", "vllm", "--model", "qwen-demo", "--prune", "balanced-serve"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--executor", "stream"], "--executor=stream with --engine vllm; allowed: local, ray"),
        (
            ["--executor", "ray", "--runtime-env", "code"],
            "--runtime-env=code with --engine vllm; allowed: none or a YAML file",
        ),
        (["--plan"], "--plan=True with --engine vllm; allowed: a run without it"),
        (["--device", "cuda:1"], "--device=cuda:1 with --engine vllm"),
        (["--random-weights"], "--random-weights=True with --engine vllm"),
        (
            ["--model", "demo"],
            "model='demo': model_type='videoprune_multi_encoder'; allowed inside vLLM: llava_",
        ),
        (["--prune", "balanced"], "llm.method='adaptive' drops tokens between the LLM's layers"),
    ],
)
def test_what_cannot_be_done_is_said(
    words: list[str], said: str, tmp_path, monkeypatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*EVAL, *words]) == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is there")
def test_without_vllm_the_page_is_named(tmp_path, monkeypatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(EVAL) == 2
    assert "engine='vllm': No module named 'vllm'; docs/vllm.md says" in capsys.readouterr().err
