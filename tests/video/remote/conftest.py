from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.video.remote.web import Web, serving


@pytest.fixture
def web() -> Iterator[Web]:
    with serving() as found:
        yield found
