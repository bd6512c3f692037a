"""What the server does not do, in a sentence, with the status and the form of OpenAI's errors."""

from __future__ import annotations

from typing import Any

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


class Refused(Exception):  # noqa: N818 - it is an answer
    """code: for programs. param: the field that is wrong. retry: seconds after which another try may work."""

    def __init__(
        self, status: int, message: str, *, code: str = "", param: str | None = None, retry: int | None = None
    ) -> None:
        super().__init__(_whole(message))
        self.status, self.code, self.retry = status, code or None, retry
        self.param = None if param is None else _whole(param)

    def as_dict(self) -> dict[str, Any]:
        kind = _TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}

    @property
    def headers(self) -> dict[str, str]:
        return {} if self.retry is None else {"Retry-After": str(self.retry)}


def _whole(text: str) -> str:
    """Without halves of surrogate pairs, which cannot be sent."""
    return text.encode("utf-8", "replace").decode()
