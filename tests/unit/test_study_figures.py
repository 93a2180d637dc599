"""Pictures of what studies have learned."""

import io
import json
import struct
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest
from matplotlib.figure import Figure

from service.analysis import scales, study_figures, style
from service.analysis.parallel import parallel_coordinates
from service.domain.history import History
from service.domain.study_analysis import StudyAnalysis
from service.domain.trial import TrialState
from tests.analysed import a_history, an_analysis, configurations

NAMES = {"importance.png", "history.png", "learning_curves.png", "parallel_coordinates.png", "slices.png"}


def plain(analysis: StudyAnalysis) -> Mapping[str, Any]:
    """As the child reads it."""
    read: Mapping[str, Any] = json.loads(json.dumps(asdict(analysis)))
    return read


def size_of(png: bytes) -> tuple[int, int]:
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", png[16:24])
    return width, height


def texts_of(figure: Figure) -> str:
    """All that stands in a picture's titles, ticks and labels, without drawing it."""
    found = [text.get_text() for axes in figure.axes for text in axes.texts]
    for axes in figure.axes:
        labels = [*axes.get_xticklabels(), *axes.get_yticklabels(), axes.xaxis.label, axes.yaxis.label]
        found += [axes.get_title(loc="left"), axes.get_title(), *(label.get_text() for label in labels)]
    return "\n".join([*found, figure.get_suptitle()])


def drawn(picture: study_figures.Draw, analysis: StudyAnalysis) -> Figure:
    figure = picture(plain(analysis))
    assert figure is not None
    return figure


@pytest.mark.parametrize("trials", [1, 12, 700])
def test_an_analysis_has_pictures_of_bounded_size(trials: int) -> None:
    history = a_history(configurations(trials), lambda one: [0.5, 0.9 - one["weight_decay"]])
    pictures = study_figures.draw(plain(an_analysis(history=history)))
    assert set(pictures) == (NAMES if trials >= 10 else NAMES - {"importance.png"})
    for png in pictures.values():
        assert all(250 <= side <= 2000 for side in size_of(png))
        assert len(png) > 5000, "more than a white page"


def test_many_parameters_and_long_choices_fit_on_a_page() -> None:
    analysis = plain(an_analysis())
    copies = [f"{number}_{'x' * 80}" for number in range(99)]
    parallel, measured = analysis["parallel_coordinates"], analysis["importance"]
    labels = [json.dumps("y" * 80), "null", "16", *map(json.dumps, map(str, range(80)))]
    axes = [*parallel["axes"], *({**parallel["axes"][1], "parameter": copy, "choices": labels} for copy in copies)]
    lines = [{**line, "values": {**line["values"], **dict.fromkeys(copies, "null")}} for line in parallel["lines"]]
    shares = [*measured["parameters"], *({"parameter": copy, "importance": 0.0, "note": None} for copy in copies)]
    points = [{**point, "value": "null"} for point in analysis["slices"][0]["points"]]
    whole = {
        **analysis,
        "importance": {**measured, "parameters": shares},
        "parallel_coordinates": {**parallel, "axes": axes, "lines": lines},
        "slices": [*analysis["slices"], *({"parameter": copy, "points": points} for copy in copies)],
    }
    for png in study_figures.draw(whole).values():
        assert all(250 <= side <= 3000 for side in size_of(png))


def test_a_study_without_a_value_has_no_pictures() -> None:
    assert study_figures.draw(plain(an_analysis(history=History()))) == {}


def test_the_axis_of_a_logarithmic_parameter_is_logarithmic_and_its_ticks_can_be_read() -> None:
    figure = drawn(study_figures.slices, an_analysis())
    axes = {one.get_xlabel(): one for one in figure.axes}
    assert axes["learning_rate"].get_xscale() == "log"
    assert axes["weight_decay"].get_xscale() == "linear"
    with mpl.rc_context(style.STYLE):
        style.png(figure)
        assert "1e-04" in texts_of(figure)
        assert "$" not in texts_of(figure)


def test_choices_stand_at_their_ticks_without_quotes() -> None:
    figure = drawn(study_figures.slices, an_analysis())
    [axes] = [one for one in figure.axes if one.get_xlabel() == "batch_size"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["16", "32"]
    assert [scales.choice_text(label) for label in ('"cosine"', "null", "[1, 2]", '"models/tiny"')] == [
        "cosine",
        "null",
        "[1, 2]",
        "tiny",
    ]


def test_a_trial_without_a_parameter_passes_below_its_axis() -> None:
    tried = [*configurations(12), {"learning_rate": 1e-3, "batch_size": 16}]
    figure = drawn(parallel_coordinates, an_analysis(history=a_history(tried, lambda _: [0.5])))
    assert texts_of(figure).count("not set") == 1


def test_every_picture_names_the_metric() -> None:
    analysis = an_analysis()
    for picture in (study_figures.importance, study_figures.history, study_figures.learning_curves, study_figures.slices):
        assert "validation/accuracy" in texts_of(drawn(picture, analysis))
    assert "validation/accuracy" in texts_of(drawn(parallel_coordinates, analysis))


def test_more_trials_than_are_drawn_are_told() -> None:
    history = a_history(configurations(700), lambda one: [one["weight_decay"]], TrialState.PRUNED)
    analysis = an_analysis(history=history)
    assert "Learning curves of 100 of 700 trials" in texts_of(drawn(study_figures.learning_curves, analysis))
    assert "500 of 700 trials" in texts_of(drawn(parallel_coordinates, analysis))


@pytest.mark.parametrize(
    ("direction", "values", "shown"),
    [
        ("minimize", [1.0, 1.1, 1.2, 1.3, 900.0], (1.0, 1.3)),
        ("maximize", [1.0, 1.1, 1.2, 1.3, 900.0], (1.0, 900.0)),
        ("maximize", [0.9, 0.91, 0.92, 0.93, -40.0], (0.9, 0.93)),
        ("minimize", [0.5, 0.5], (0.0, 1.0)),
    ],
)
def test_a_value_that_is_worse_by_far_does_not_squeeze_the_others(
    direction: str, values: Sequence[float], shown: tuple[float, float]
) -> None:
    assert scales.limits(values, direction)[:2] == pytest.approx(shown)


def test_what_is_left_out_for_that_is_told() -> None:
    assert scales.limits([1.0, 1.1, 1.2, 1.3, 900.0], "minimize")[2] == "1 much worse value lies beyond the edge"
    assert scales.limits([1.0, 1.1, 1.2, 1.3], "minimize")[2] is None


def test_whole_numbers_have_whole_ticks() -> None:
    axis = {"kind": "int", "low": 0.0, "high": 6.0, "log": False, "choices": []}
    assert [text for _, text in scales.ticks(axis)] == ["0", "1", "2", "3", "4", "5", "6"]


def test_the_process_writes_the_pictures_of_what_it_reads_on_stdin(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(plain(an_analysis()))))
    assert study_figures.main([str(tmp_path)]) == 0
    assert {path.name for path in tmp_path.iterdir()} == NAMES
