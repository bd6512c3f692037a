"""Rivals of the project's own methods, one signature for all: method(clip, keep, *, generator=None, **knobs) -> plan.

They decide on a whole clip's tokens at one place of the model, usually the encoder's end, and keep exactly `keep` of
them; `registry.OVER_CLIP` has them by name. `llm.py` has what works inside the LLM.
"""
