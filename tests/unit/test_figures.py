"""Pictures of analyses, and the process that draws them."""

import json
import struct
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from service.analysis import figures, pictures

CALIBRATION = {
    "ece": 0.05,
    "bins": [
        {"low": 0.4, "high": 0.466667, "confidence": 0.45, "accuracy": 0.4, "rows": 10},
        {"low": 0.933333, "high": 1.0, "confidence": 0.98, "accuracy": 1.0, "rows": 30},
    ],
}


def an_analysis(classes: int, **changes: Any) -> Mapping[str, Any]:
    """Of a classification in which each class but the last is taken for the next one once in three times."""
    labels = [f"label {number}" for number in range(classes)]
    confusion = [[number, number, 20] for number in range(classes)] + [[number, number + 1, 10] for number in range(classes - 1)]
    scores = [{"label": label, "precision": 0.9, "recall": 0.8, "f1": 0.85, "support": 20} for label in labels]
    common = {"task": "text-classification", "rows": 40, "metrics": {"accuracy": 0.8}, "labels": labels, "mistakes": []}
    by_length = [{"from": 1, "to": 9, "rows": 20, "accuracy": 0.9}, {"from": 10, "to": 10, "rows": 20, "accuracy": None}]
    parts = {"confusion": confusion, "per_class": scores, "calibration": CALIBRATION, "by_length": by_length}
    return {**common, **parts, **changes}


def size_of(png: bytes) -> tuple[int, int]:
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", png[16:24])
    return width, height


@pytest.mark.parametrize("classes", [2, 20, 77])
def test_a_classification_has_four_pictures_of_bounded_size(classes: int) -> None:
    drawn = figures.draw(an_analysis(classes))
    assert set(drawn) == {"confusion.png", "per_class.png", "calibration.png", "by_length.png"}
    for png in drawn.values():
        assert all(200 <= side <= 1500 for side in size_of(png))


def shown_labels(analysis: Mapping[str, Any]) -> list[str]:
    figure = figures.confusion(analysis)
    assert figure is not None
    return [label.get_text() for label in figure.axes[0].get_yticklabels()]


def test_all_labels_are_in_a_confusion_of_few() -> None:
    assert shown_labels(an_analysis(20)) == [f"label {number}" for number in range(20)]


def test_of_many_labels_those_most_often_confused_are_shown_side_by_side() -> None:
    analysis = an_analysis(77, confusion=[*[[n, n, 50] for n in range(77)], [70, 3, 9], [5, 60, 8], [60, 41, 7]])
    shown = shown_labels(analysis)
    assert len(shown) == 20
    assert shown[:5] == ["label 3", "label 70", "label 5", "label 60", "label 41"]


def test_a_cells_share_is_of_all_rows_of_its_label_shown_or_not() -> None:
    confusion = [[0, 1, 60], *[[0, n, 1] for n in range(2, 42)], *[[n, n, 50] for n in range(1, 77)]]
    figure = figures.confusion(an_analysis(77, confusion=confusion))
    assert figure is not None
    shares = figure.axes[0].images[0].get_array()
    assert shares is not None
    assert shares[0, 1] == pytest.approx(0.6)


def test_a_token_classification_shows_its_entities_scores() -> None:
    scores = [{"label": "PER", "precision": 0.9, "recall": 0.8, "f1": 0.85, "support": 20}]
    analysis = {"task": "token-classification", "per_entity": scores, "by_length": [{"from": 1, "to": 9, "rows": 2, "f1": 0.5}]}
    assert set(figures.draw(analysis)) == {"per_class.png", "by_length.png"}


def test_numbers_show_their_residuals() -> None:
    residuals = {"mean": 0.1, "std": 1.0, "quantiles": [], "histogram": [{"low": -1, "high": 1, "rows": 3}]}
    binned = [{"from": 0.0, "to": 1.0, "rows": 3, "predicted": 0.5, "wanted": 0.4}]
    analysis = {"task": "text-classification", "residuals": residuals, "binned": binned}
    assert set(figures.draw(analysis)) == {"residuals.png"}


def test_a_language_model_shows_its_highest_losses_and_where_in_a_row_they_are() -> None:
    by_length = [{"from": 1, "to": 9, "rows": 2, "loss": 2.5}]
    analysis = {
        "task": "causal-lm",
        "metrics": {"loss": 2.0},
        "mistakes": [{"text": "Once upon a time\tthere", "loss": 3.0, "tokens": 4}],
        "by_length": by_length,
        "by_position": [{"from": 0, "to": 3, "tokens": 20, "loss": 2.1}],
    }
    drawn = figures.draw(analysis)
    assert set(drawn) == {"losses.png", "by_length.png"}
    alone, _ = size_of(figures.draw({"task": "causal-lm", "by_length": by_length})["by_length.png"])
    assert size_of(drawn["by_length.png"])[0] == pytest.approx(2 * alone, abs=2)


def test_names_are_drawn_in_one_line_as_they_are_even_with_dollars_and_without_an_end() -> None:
    labels = ["$5 and \\alpha$", "new\nline", "x" * 400]
    shown = shown_labels(an_analysis(3, labels=labels))
    assert shown == ["$5 and \\alpha$", "new line", "x" * 23 + "…"]
    assert "confusion.png" in figures.draw(an_analysis(3, labels=labels))


def test_an_analysis_of_nothing_has_no_pictures() -> None:
    assert figures.draw({"task": "causal-lm", "rows": 0, "metrics": {}}) == {}


def test_the_command_writes_the_pictures_into_a_folder(tmp_path: Path) -> None:
    (tmp_path / "analysis.json").write_text(json.dumps({"task": "image-classification", "calibration": CALIBRATION}))
    assert figures.main([str(tmp_path / "analysis.json"), str(tmp_path)]) == 0
    size_of((tmp_path / "calibration.png").read_bytes())


def test_a_child_process_draws_and_answers_the_pictures() -> None:
    drawn = pictures.begin({"task": "image-classification", "calibration": CALIBRATION}).result(110)
    assert set(drawn) == {"calibration.png"}


def test_a_drawing_that_fails_says_what_the_child_said() -> None:
    error = pictures.begin({"task": "image-classification", "calibration": {"bins": [{"low": 0}]}}).exception(110)
    assert isinstance(error, RuntimeError)
    assert "KeyError" in str(error)


def test_studies_that_end_together_are_drawn_one_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    at_once, most, let = [0], [0], threading.Event()

    def render(_: Mapping[str, Any]) -> Mapping[str, bytes]:
        at_once[0] += 1
        most[0] = max(most[0], at_once[0])
        let.wait(0.05)
        at_once[0] -= 1
        return {}

    monkeypatch.setattr(pictures, "render", render)
    for drawing in [pictures.begin({}) for _ in range(4)]:
        assert drawing.result(60) == {}
    assert most == [1]


def test_a_child_that_takes_too_long_gets_a_second_chance_and_no_third(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[float] = []

    def run(command: Any, *, timeout: float, **_: Any) -> Any:
        started.append(timeout)
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr("service.analysis.pictures.subprocess.run", run)
    with pytest.raises(RuntimeError, match="not drawn within 60 s"):
        pictures.render({})
    assert started == [60.0, 60.0]
