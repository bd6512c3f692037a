"""Errors after which a process can do nothing more on its device: an assertion inside a kernel, an illegal address."""

from __future__ import annotations

import torch


class LostDeviceError(Exception):
    """The device no longer answers this process, whatever it is asked; a new process may use it."""


def raise_if_lost(error: Exception) -> None:
    """Raises LostDeviceError for an `error` that every later call would meet too. Running out of memory is none."""
    if isinstance(error, LostDeviceError):
        raise error
    if isinstance(error, torch.AcceleratorError) and not isinstance(error, torch.OutOfMemoryError):
        raise LostDeviceError(f"{type(error).__name__}: {error}") from error
