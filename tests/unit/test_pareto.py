"""Domination, fronts, crowding and hypervolume."""

import math
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.domain.pareto import best_first, crowding, dominates, front, hypervolume, ranks

Point = tuple[float, ...]


def points(dimensions: int, most: int = 12) -> st.SearchStrategy[list[Point]]:
    """On a coarse grid, so that equal points and equal coordinates are common."""
    return st.lists(st.tuples(*[st.integers(0, 5).map(float)] * dimensions), max_size=most)


ANY_POINTS = st.integers(2, 4).flatmap(points)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [((1, 1), (2, 2), True), ((1, 2), (2, 2), True), ((1, 3), (2, 2), False), ((2, 2), (2, 2), False), ((2, 2), (1, 1), False)],
)
def test_a_point_dominates_one_that_it_is_nowhere_worse_and_somewhere_better_than(
    one: Point,
    other: Point,
    expected: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    assert dominates(one, other) is expected


@settings(max_examples=200)
@given(ANY_POINTS)
def test_the_front_is_what_no_other_point_dominates(some: list[Point]) -> None:
    assert front(some) == [place for place, one in enumerate(some) if not any(dominates(other, one) for other in some)]


@settings(max_examples=200)
@given(ANY_POINTS)
def test_a_point_of_a_later_front_is_dominated_by_one_of_the_front_before_and_by_none_of_its_own(some: list[Point]) -> None:
    found = ranks(some)
    for one, rank in zip(some, found, strict=True):
        assert not any(dominates(other, one) for other, at in zip(some, found, strict=True) if at == rank)
        if rank:
            assert any(dominates(other, one) for other, at in zip(some, found, strict=True) if at == rank - 1)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 4).flatmap(lambda dimensions: points(dimensions, most=80)))
def test_the_fronts_are_what_is_left_undominated_after_those_before_are_taken_away(some: list[Point]) -> None:
    found, left = [0] * len(some), set(range(len(some)))
    for rank in range(len(some)):
        taken = {place for place in left if not any(dominates(some[other], some[place]) for other in left)}
        found = [rank if place in taken else at for place, at in enumerate(found)]
        left -= taken
    assert ranks(some) == found


def test_a_front_of_many_points_in_four_dimensions_is_told_from_what_it_dominates() -> None:
    corners = [tuple(map(float, one)) for one in product(range(5), repeat=4) if sum(one) == 8]  # 85 of them, none beats another
    behind = [tuple(each + 1 for each in one) for one in corners]
    assert ranks([*behind, *corners]) == [1] * len(behind) + [0] * len(corners)


@settings(max_examples=100)
@given(ANY_POINTS)
def test_the_best_come_first_and_everyone_once(some: list[Point]) -> None:
    order, found = best_first(some), ranks(some)
    assert sorted(order) == list(range(len(some)))
    assert [found[place] for place in order] == sorted(found)


def test_the_ends_of_a_front_are_the_loneliest_and_the_others_as_their_neighbours_are_far() -> None:
    assert crowding([(0.0, 4.0), (1.0, 3.0), (2.0, 2.0), (4.0, 0.0)]) == [math.inf, 1.0, 1.5, math.inf]


@pytest.mark.parametrize(
    ("some", "reference", "volume"),
    [
        ([], (1.0, 1.0), 0.0),
        ([(0.0, 0.0)], (2.0, 3.0), 6.0),
        ([(0.0, 2.0), (1.0, 1.0), (2.0, 0.0)], (3.0, 3.0), 6.0),
        ([(0.0, 2.0), (1.0, 1.0), (1.0, 1.0), (2.0, 2.0), (2.0, 0.0)], (3.0, 3.0), 6.0),
        ([(0.0, 0.0), (5.0, 0.0)], (1.0, 1.0), 1.0),
        ([(0.0, 1.0)], (1.0, 1.0), 0.0),
        ([(0.0, 0.0, 0.0)], (1.0, 2.0, 3.0), 6.0),
        ([(0.0, 0.0, 1.0), (1.0, 1.0, 0.0)], (2.0, 2.0, 2.0), 5.0),
        ([(0.0, 0.0, 0.0, 1.0), (1.0, 1.0, 1.0, 0.0)], (2.0, 2.0, 2.0, 2.0), 9.0),
    ],
)
def test_the_volume_of_known_fronts(some: list[Point], reference: Point, volume: float) -> None:
    assert hypervolume(some, reference) == pytest.approx(volume)


@settings(max_examples=60)
@given(st.integers(2, 4).flatmap(lambda dimensions: points(dimensions, most=6)))
def test_the_volume_is_that_of_the_unit_boxes_that_some_point_covers(some: list[Point]) -> None:
    dimensions = len(some[0]) if some else 2
    boxes = product(range(6), repeat=dimensions)
    covered = sum(any(all(a <= b for a, b in zip(one, box, strict=True)) for one in some) for box in boxes)
    assert hypervolume(some, (6.0,) * dimensions) == pytest.approx(covered)


@given(ANY_POINTS)
def test_what_is_dominated_adds_no_volume(some: list[Point]) -> None:
    reference = (6.0,) * (len(some[0]) if some else 2)
    assert hypervolume([some[place] for place in front(some)], reference) == pytest.approx(hypervolume(some, reference))
