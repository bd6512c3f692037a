"""How many requests a second vLLM answers with so many in flight: as soon as one is answered the next one comes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice
from typing import Any


def requests_a_second(
    llm: Any, prompts: Iterator[Any], sampling: Any, in_flight: int, requests: int
) -> float:
    """Of `requests` prompts, each about a clip of its own, which come as `LLM.generate` takes them: preparing them is
    part of the time, as it is part of serving. llm: a `vllm.LLM` without other requests."""
    waiting = islice(prompts, requests)
    began, done = time.perf_counter(), 0
    for one in islice(waiting, in_flight):
        llm.enqueue([one], sampling, use_tqdm=False)
    while done < requests:
        for out in llm.llm_engine.step():
            if not out.finished:
                continue
            done += 1
            for one in islice(waiting, 1):
                llm.enqueue([one], sampling, use_tqdm=False)
    return requests / (time.perf_counter() - began)
