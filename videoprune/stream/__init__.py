"""Questions about a live stream, with a memory that stays bounded."""

from videoprune.stream.answer import StreamAnswer, StreamStats
from videoprune.stream.asking import Cancelled
from videoprune.stream.memory import StreamConfig
from videoprune.stream.session import StreamSession
from videoprune.stream.standing import Fired, Standing, StandingQuestions

__all__ = [
    "Cancelled",
    "Fired",
    "Standing",
    "StandingQuestions",
    "StreamAnswer",
    "StreamConfig",
    "StreamSession",
    "StreamStats",
]
