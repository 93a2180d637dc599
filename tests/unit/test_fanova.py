"""Shares of variance, on functions whose shares are known."""

import io
import json
import sys

import numpy as np
import pytest

from service.analysis import fanova


def points(count: int, size: int) -> fanova.Floats:
    return np.random.default_rng(7).random((count, size))


def test_the_one_coordinate_that_matters_gets_nearly_all() -> None:
    drawn = points(60, 5)
    found = fanova.shares(drawn, np.sin(5 * drawn[:, 3]))
    assert found[3] > 0.9
    assert found.sum() == pytest.approx(1)


def test_of_a_sum_each_term_gets_its_share_of_the_variance() -> None:
    drawn = points(500, 3)
    found = fanova.shares(drawn, 2 * drawn[:, 0] + drawn[:, 1])
    assert found == pytest.approx([0.8, 0.2, 0.0], abs=0.03), "variances of 2x and x are as 4 to 1"


def test_where_points_are_crowded_counts_no_more_than_elsewhere() -> None:
    drawn = points(500, 2)
    drawn[:400, 0] = 0.2 * drawn[:400, 0]
    found = fanova.shares(drawn, 2 * drawn[:, 0] + drawn[:, 1])
    assert found[0] == pytest.approx(0.8, abs=0.06)


def test_a_constant_coordinate_gets_nothing() -> None:
    drawn = points(100, 2)
    drawn[:, 1] = 0.5
    assert fanova.shares(drawn, drawn[:, 0]).tolist() == [1.0, 0.0]


def test_where_nothing_differs_nothing_matters() -> None:
    assert fanova.shares(points(50, 3), np.ones(50)).tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("size", [1e-320, 1e-200, 1.0, 1e173, 8e307])
def test_how_large_the_values_are_changes_nothing(size: float) -> None:
    drawn = points(80, 3)
    found = fanova.shares(drawn, size * (2 * drawn[:, 1] - 1))
    assert found == pytest.approx(fanova.shares(drawn, drawn[:, 1]), abs=0.02)


@pytest.mark.parametrize("largest", [1e173, 1.7e308, -1.7e308])
def test_one_huge_value_leaves_the_shares_finite(largest: float) -> None:
    drawn = points(40, 2)
    values = drawn[:, 0].copy()
    values[3] = largest
    found = fanova.shares(drawn, values)
    assert found.sum() == pytest.approx(1)
    assert (found >= 0).all()


def test_the_same_points_give_the_same_shares() -> None:
    drawn = points(80, 3)
    assert fanova.shares(drawn, drawn[:, 0]).tolist() == fanova.shares(drawn, drawn[:, 0]).tolist()


def test_the_leaves_of_a_tree_tile_the_unit_cube() -> None:
    drawn = points(200, 3)
    leaves = fanova.grow(drawn, drawn[:, 0] * drawn[:, 1])
    assert len(leaves.means) > 10
    assert np.prod(leaves.highs - leaves.lows, axis=1).sum() == pytest.approx(1)


def test_the_process_answers_on_stdout_what_it_reads_on_stdin(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    request = {"points": points(30, 2).tolist(), "values": list(range(30))}
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(request)))
    assert fanova.main() == 0
    assert sum(json.loads(capsys.readouterr().out)) == pytest.approx(1)
