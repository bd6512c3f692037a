"""How long vLLM takes for requests with so many in flight: as soon as one is answered the next one comes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from statistics import fmean
from typing import Any


@dataclass(frozen=True)
class Served:
    """seconds: from the first request to the last answer. prompt_tokens: of a prompt, on average."""

    requests: int
    seconds: float
    prompt_tokens: float


def serve(llm: Any, prompts: Sequence[Callable[[], Any]], sampling: Any, in_flight: int) -> Served:
    """Answer `prompts`, each made when its turn comes, as `LLM.generate` takes it: preparing them is part of the time,
    as it is part of serving. llm: a `vllm.LLM` without other requests."""
    waiting, tokens = iter(prompts), list[int]()
    began = time.perf_counter()
    for make in islice(waiting, in_flight):
        llm.enqueue([make()], sampling, use_tqdm=False)
    while len(tokens) < len(prompts):
        for out in llm.llm_engine.step():
            if not out.finished:
                continue
            tokens.append(len(out.prompt_token_ids))
            for make in islice(waiting, 1):
                llm.enqueue([make()], sampling, use_tqdm=False)
    return Served(len(prompts), time.perf_counter() - began, fmean(tokens))
