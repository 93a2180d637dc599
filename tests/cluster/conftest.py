"""What the tests on several hosts share."""

from collections.abc import Iterator, Mapping

import pytest

from tests.cluster.network import HEAD, a_network
from tests.s3 import running_s3


@pytest.fixture
def s3() -> Iterator[Mapping[str, str]]:
    with running_s3(HEAD) as environment:
        yield environment


@pytest.fixture
def network() -> Iterator[None]:
    with a_network():
        yield
