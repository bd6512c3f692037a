"""The highest memory that a piece of work takes: on a GPU as its allocator counts, else resident in this process."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

_PROC = Path("/proc/self")
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4  # of glibc's malloc.h
_TOO_MUCH = ("out of memory", "can't allocate memory", "cannot allocate memory")
_keeps = False


class TooMuchMemoryError(RuntimeError):
    """What was to be done takes more memory than there is."""


@contextmanager
def memory_limits() -> Iterator[None]:
    """Turns what torch and Python raise without enough memory into `TooMuchMemoryError`; other errors pass."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        text = (str(error).splitlines() or [""])[0]
        known = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if not known and not any(words in str(error).lower() for words in _TOO_MUCH):
            raise
        raise TooMuchMemoryError(text or type(error).__name__) from None


def forget_cache() -> None:
    """Give back what a GPU's allocator holds and nothing uses: after `TooMuchMemoryError`, once the error is gone."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def keep_freed() -> None:
    """From now on what is freed stays in the process, where the C library can do that (glibc).

    By itself it returns every large buffer to the kernel, and the next one is faulted in page by page: on a virtual
    machine up to a third of the time of a large model, unevenly from run to run.
    """
    global _keeps
    _keeps = True
    _set_malloc(keep=True)


def _set_malloc(*, keep: bool) -> None:
    """Large buffers from one heap that never shrinks, or each by itself and given back when it is freed."""
    with suppress(OSError, AttributeError):  # only glibc has it
        libc = ctypes.CDLL(None)
        libc.mallopt(_MMAP_MAX, 0 if keep else 65536)
        libc.mallopt(_MMAP_THRESHOLD, 2**17)
        libc.mallopt(_TRIM_THRESHOLD, 2**31 - 1 if keep else 2**17)


def peak_above(work: Callable[[], object], device: torch.device | str) -> int | None:
    """Do `work`, which computes on `device`; the most memory in use during it, above that before it, in bytes.

    On a GPU: of tensors. Elsewhere: resident in this process, which counts a page of the weights too where `work` is
    the first to touch it, so call it once before. None, with nothing done, where the kernel does not tell (Linux does).
    """
    gc.collect()
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
        held = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        work()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - held
    _set_malloc(keep=False)  # a heap that is kept has holes, which would count
    give_back()
    try:
        before = _forget_peak()
        if before is None:
            return None
        work()
        return max(0, resident("VmHWM") - before)
    finally:
        _set_malloc(keep=_keeps)


def warm_peak(work: Callable[[], object], device: torch.device | str) -> int | None:
    """`peak_above`, after `work` was done once: weights and code that the first use loads are no peak of it."""
    work()
    return peak_above(work, device)


def _forget_peak() -> int | None:
    """The peak begins anew at what is resident now: that, in bytes, or None where the kernel does not tell."""
    try:
        (_PROC / "clear_refs").write_text("5")
        return resident("VmRSS")
    except (OSError, KeyError):
        return None


def resident(name: str) -> int:
    """`VmRSS`, now, or `VmHWM`, the peak: bytes. Raises KeyError if the kernel does not tell it."""
    lines = (line.split() for line in (_PROC / "status").read_text().splitlines())
    found = {words[0].rstrip(":"): words[1] for words in lines if len(words) > 1}
    return 1024 * int(found[name])


def give_back() -> None:
    """What was freed goes back to the system, where the C library can: else its reuse would not be seen."""
    with suppress(OSError, AttributeError):  # only glibc has it
        ctypes.CDLL(None).malloc_trim(0)
