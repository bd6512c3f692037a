"""Rivals of the project's own methods, one signature for all: method(clip, keep, *, generator=None, **knobs) -> plan.

They decide on a whole clip's tokens at one place of the model, usually the encoder's end, and keep `keep` of them, or
as near as their authors' programs come (`OverClip.exact`); `registry.OVER_CLIP` has them by name. `tome.py` works
inside the encoder, `holitom_llm.py`, `framefusion.py`, `sparsevlm.py` and `llm.py` inside the LLM.
"""
