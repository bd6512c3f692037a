"""Questions about a live stream, with a memory that stays bounded."""

from videoprune.stream.answer import StreamAnswer, StreamStats
from videoprune.stream.asking import Cancelled
from videoprune.stream.memory import StreamConfig
from videoprune.stream.session import StreamSession

__all__ = ["Cancelled", "StreamAnswer", "StreamConfig", "StreamSession", "StreamStats"]
