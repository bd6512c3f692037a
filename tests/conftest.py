"""Properties have no time limit: how fast an example runs says more about the machine's other work."""

from hypothesis import settings

settings.register_profile("no deadline")
settings.load_profile("no deadline")
