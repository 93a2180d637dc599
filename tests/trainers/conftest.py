"""A place for each trainer's case."""

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
import torch

from tests.trainers.cases import ALL_CASES, CASES, Case


@pytest.fixture(scope="session", params=CASES, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> Case:
    found: Case = request.param
    return found


@pytest.fixture(scope="session", params=ALL_CASES, ids=lambda case: case.name)
def any_case(request: pytest.FixtureRequest) -> Case:
    """Those that train nothing too."""
    found: Case = request.param
    return found


@pytest.fixture(scope="session")
def places(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """Where model and rows of each of `ALL_CASES` are, by its number, written when somebody first asks."""

    @cache
    def written(number: int) -> Path:
        folder = tmp_path_factory.mktemp(ALL_CASES[number].name)
        ALL_CASES[number].write(folder)
        return folder

    return written


@pytest.fixture
def place(case: Case, places: Callable[[int], Path]) -> Path:
    """Where the case's model and rows are. Prepared rows are shared by its tests, as they are by a study's trials."""
    return places(CASES.index(case))


@pytest.fixture
def any_place(any_case: Case, places: Callable[[int], Path]) -> Path:
    return places(ALL_CASES.index(any_case))


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
