"""A server on loopback for every test that wants one."""

from collections.abc import Iterator

import pytest
from loopback import Loopback, serving


@pytest.fixture
def server() -> Iterator[Loopback]:
    with serving() as loopback:
        yield loopback
