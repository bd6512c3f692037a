"""Releases of other packages that this one was tested on, lowest and newest: the bounds of pyproject.toml."""

TORCH = ("2.8", "2.13")
TRANSFORMERS = ("5.18", "5.24")
