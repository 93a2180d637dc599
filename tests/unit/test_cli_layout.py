"""Tables on terminals of 80 and 130 columns, and in files."""

from collections.abc import Callable
from dataclasses import replace
from io import StringIO

import pytest
from rich.console import RenderableType

from service.api.access_views import AuditEntryView
from service.api.schemas import DatasetFileView, ManifestView, ReportView, TrialView
from service.cli.access import _audit_table
from service.cli.layout import Rows
from service.cli.model_tables import candidates_table
from service.cli.shown import ShowingConsole
from service.cli.tables import datasets_table, manifest_table, studies_table, trial_table, trials_table
from service.domain.access import AuditEntry, Role
from service.domain.datasets import DatasetFile
from service.domain.study import StudyReason, StudyState
from service.domain.trial import TrialState
from tests.builders import NOW, a_report, a_study, a_trial
from tests.unit.stand_in import a_manifest, a_study_view
from tests.unit.test_cli_models import a_ranking

LONG_ID = "banking-intents-of-a-whole-team-abc123"
NAMES = ("learning_rate", "batch_size", "weight_decay", "dropout", "frozen_layers", "warmup_fraction", "gradient_clip", "seed_of")


def printed(table: RenderableType, width: int, *, terminal: bool = True) -> list[str]:
    out = StringIO()
    console = ShowingConsole(file=out, width=width, force_terminal=terminal, no_color=True, highlight=False, markup=False)
    console.print(table, crop=terminal)
    return [line.rstrip() for line in out.getvalue().replace("\x1b[2m", "").replace("\x1b[0m", "").splitlines()]


def studies() -> RenderableType:
    best = a_trial(0, state=TrialState.COMPLETED, reports=2, best_value=0.9, best_report=1, ended_at=NOW)
    ended = replace(a_study(LONG_ID), state=StudyState.COMPLETED, reason=StudyReason.BUDGET_SPENT, started_at=NOW, ended_at=NOW)
    return studies_table([a_study_view(ended, best), a_study_view(a_study())])


def trials() -> RenderableType:
    values = dict.fromkeys(NAMES, 3.123e-5)
    return trials_table([TrialView.of(a_trial(0, parameters=values)), TrialView.of(a_trial(10, parameters=values))])


def datasets() -> RenderableType:
    columns = tuple(f"column_{at}" for at in range(30))
    return datasets_table([DatasetFileView.of(DatasetFile("banking77", "train.csv", 123_456, "0" * 64, 9_003, columns, NOW))])


def manifest() -> RenderableType:
    return manifest_table(ManifestView.of(a_manifest()))


def ranking() -> RenderableType:
    found = a_ranking()
    named = found.models[0].model_copy(update={"name": "sentence-transformers/all-MiniLM-L6-v2"})
    return candidates_table(found.model_copy(update={"models": [named, *found.models[1:]]}))


def audit() -> RenderableType:
    path = f"/v1/studies/{LONG_ID}/trials/12:stop"
    entry = AuditEntry(NOW, "ada", Role.EDITOR, "vision", None, "stopTrial", path, 200, "192.0.2.7", 7)
    return _audit_table([AuditEntryView.of(entry)])


ALL: dict[Callable[[], RenderableType], tuple[str, ...]] = {
    studies: (LONG_ID, "completed: budget_spent", "0.9000"),
    trials: ("10",),
    datasets: ("dataset://banking77/train.csv", "9003", "123.5 kB"),
    manifest: ("model.safetensors", "7.0 kB"),
    ranking: ("sentence-transformers/all-MiniLM-L6-v2", "0.9000"),
    audit: ("2030-", "ada", "stopTrial"),
}
"""Tables, and what of them is whole at every width."""


@pytest.mark.parametrize("table", ALL, ids=lambda table: table.__name__)
@pytest.mark.parametrize("width", [80, 130])
def test_a_table_fits_a_terminal_and_cuts_nothing(table: Callable[[], RenderableType], width: int) -> None:
    lines = printed(table(), width)
    assert max(map(len, lines)) <= width
    assert "…" not in "".join(lines)
    for whole in ALL[table]:
        assert any(whole in line for line in lines), (whole, lines)


@pytest.mark.parametrize("table", ALL, ids=lambda table: table.__name__)
def test_a_table_for_a_program_has_every_column(table: Callable[[], RenderableType]) -> None:
    assert not any("no room" in line for line in printed(table(), 200, terminal=False))


def test_a_table_for_a_program_is_as_wide_as_its_columns() -> None:
    rows = Rows(*(str(at) for at in range(20)), drop=("7",))
    rows.add_row(*("x" * 20 for _ in range(20)))
    _, line = printed(rows, 200, terminal=False)
    assert line.split() == ["x" * 20] * 20


def test_what_there_is_no_room_for_is_named() -> None:
    rows = Rows("id", "kind", ">size", drop=("kind", "size"))
    rows.add_row("a" * 20, "b" * 20, "c" * 6)
    assert printed(rows, 30) == ["id" + " " * 22 + "size", "a" * 20 + "  " + "c" * 6, "no room for: kind (-o json has", "them)"]
    assert printed(rows, 50) == ["id" + " " * 20 + "kind" + " " * 20 + "size", "a" * 20 + "  " + "b" * 20 + "  " + "c" * 6]


def test_what_is_wider_than_the_terminal_goes_on_below() -> None:
    rows = Rows("id", ">size")
    rows.add_row("abcdefghijklmnopqrstuvwxyz", "7")
    assert "".join(printed(rows, 20)).replace(" ", "") == "idsizeabcdefghijklmn7opqrstuvwxyz"


def test_long_headings_become_short_ones_before_a_column_goes() -> None:
    rows = Rows(">trial", ">learning_rate", ">weight_decay", short={"learning_rate": "lr", "weight_decay": "wd"})
    rows.add_row("0", "1e-5", "0.1")
    assert printed(rows, 35)[0].split() == ["trial", "learning_rate", "weight_decay"]
    heading, _, *legend = printed(rows, 20)
    assert (heading.split(), legend) == (["trial", "lr", "wd"], ["lr=learning_rate", "wd=weight_decay"])


def test_sentences_share_what_the_other_columns_leave() -> None:
    rows = Rows("id", "what", "why", flow=("what", "why"))
    rows.add_row("x", "one two three four", "five six seven eight nine ten")
    lines = printed(rows, 40)
    assert max(map(len, lines)) <= 40
    assert len(lines) == 3


def test_a_trial_without_reports_is_shown_without_their_table() -> None:
    lines = printed(trial_table(TrialView.of(a_trial()), [], []), 80)
    assert not any(line.startswith(("report", "attempt")) for line in lines)


@pytest.mark.parametrize("width", [80, 130])
def test_the_reports_of_a_trial_keep_the_first_metric(width: int) -> None:
    metrics = {f"validation/metric_number_{at}": 0.5 for at in range(12)}
    reports = [ReportView.of(replace(a_report(at), metrics=metrics)) for at in range(1, 4)]
    lines = printed(trial_table(TrialView.of(a_trial()), reports, []), width)
    assert max(map(len, lines)) <= width
    assert any("vmn0=validation/metric_number_0" in line for line in lines)
