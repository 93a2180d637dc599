"""Where the weights of a population's members come from."""

import io

from rich.console import Console

from service.api.lineage_schemas import LineageView
from service.cli.lineage_table import lineage_table
from service.domain.lineage import Stretch, lineages, members_of
from service.domain.trial import Trial, TrialReason
from tests.builders import NOW, a_trial


def a_population() -> dict[int, Trial]:
    """Of two members, the second became a copy of the first at report 2, and its copy a parent at report 4."""
    first = a_trial(0, bracket=0, reports=4, parameters={"learning_rate": 0.1})
    worse = a_trial(1, bracket=1, reports=2, parameters={"learning_rate": 0.5})
    copy = a_trial(2, bracket=1, parent=0, parent_report=2, reports=6, value=0.75, parameters={"learning_rate": 0.08})
    of_copy = a_trial(3, bracket=0, parent=2, parent_report=4, reports=5, parameters={"learning_rate": 0.064})
    repeat = a_trial(4, bracket=0, repeats=2)
    ended = [trial.started(NOW).paused().ended(TrialReason.EXPLOITED, NOW) for trial in (first, worse)]
    return {trial.number: trial for trial in (*ended, copy, of_copy, repeat)}


def test_a_member_is_filled_by_one_trial_after_the_other_and_by_no_repetition() -> None:
    found = members_of(reversed(a_population().values()))
    assert {member: [trial.number for trial in trials] for member, trials in found.items()} == {0: [0, 3], 1: [1, 2]}


def test_a_members_way_goes_over_the_copies_to_the_trial_that_began_from_nothing() -> None:
    first, second = lineages(a_population())
    assert (first.member, first.trial.number, second.member, second.trial.number) == (0, 3, 1, 2)
    assert first.stretches == [
        Stretch(0, 0, 2, {"learning_rate": 0.1}),
        Stretch(2, 2, 4, {"learning_rate": 0.08}),
        Stretch(3, 4, 5, {"learning_rate": 0.064}),
    ]
    assert second.stretches == [Stretch(0, 0, 2, {"learning_rate": 0.1}), Stretch(2, 2, 6, {"learning_rate": 0.08})]


def test_no_trials_have_no_way() -> None:
    assert lineages({}) == []


def test_a_lineage_is_shown_with_a_row_for_each_part_of_the_way() -> None:
    shown = io.StringIO()
    Console(file=shown, width=120).print(lineage_table(LineageView.of("intents-abc123", lineages(a_population()))))
    assert [line.split() for line in shown.getvalue().splitlines()] == [
        ["member", "reports", "trial", "learning_rate", "state", "value"],
        ["0", "0-2", "0", "0.1"],
        ["2-4", "2", "0.08"],
        ["4-5", "3", "0.064", "queued", "-"],
        ["1", "0-2", "0", "0.1"],
        ["2-6", "2", "0.08", "queued", "0.7500"],
    ]
