"""A judge on this machine: any causal language model, asked with the same words as the one behind a server."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from videoprune.eval.judge import Messages, Reply


class LocalJudge:
    """model: a folder or a name on the hub. Greedy, so temperature 0. max_tokens: of a reply.

    Where the tokenizer has no chat template, the messages are put under each other with a blank line between.
    """

    def __init__(self, model: str, *, device: str | None = None, max_tokens: int = 64) -> None:
        self.name, self.max_tokens = model, max_tokens
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(model)
            self.model: Any = AutoModelForCausalLM.from_pretrained(model, dtype="auto").eval()
        except OSError as error:
            raise ValueError(f"judge={model!r}: no causal language model there: {error}") from error
        self.model.to(self.device)

    def __call__(self, messages: Messages) -> Reply:
        inputs = self.tokenizer(self._text(messages), return_tensors="pt").to(self.device)
        with torch.no_grad():
            ids = self.model.generate(
                input_ids=inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                max_new_tokens=self.max_tokens,
                do_sample=False,
            )
        said = self.tokenizer.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        return Reply(said.strip(), self.name)

    def _text(self, messages: Messages) -> str:
        if getattr(self.tokenizer, "chat_template", None):
            return str(
                self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            )
        return "\n\n".join(m["content"] for m in messages) + "\n\n"
