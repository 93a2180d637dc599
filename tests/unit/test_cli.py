import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import httpx
import pytest
import typer
import yaml

from service import __version__
from service.api.schemas import EventView
from service.cli import run
from service.cli.app import app
from service.cli.session import Session
from service.cli.watch import boards
from service.client import Client
from service.domain.events import EventKind
from service.domain.stored import Footprint
from service.domain.study import StudyState, WarmStart
from service.domain.trial import TrialReason, TrialState
from tests.builders import NOW, a_document, a_study, a_trial
from tests.unit.stand_in import ANALYSIS, CHECKPOINT, STUDY_ID, TOKEN, StandIn, a_problem, an_event

HEAVY = ("ray", "torch", "mlflow", "transformers", "fastapi", "sqlalchemy", "optuna", "numpy", "pandas")


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("TUNEYARD_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("TUNEYARD_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TUNEYARD_TOKEN", TOKEN)


def tuneyard(service: StandIn, *arguments: str) -> int:
    return run(arguments, Session(transport=service, sleep=lambda _: None))


def a_finished_service() -> StandIn:
    study = replace(a_study(), state=StudyState.COMPLETED, started_at=NOW, ended_at=NOW)
    best = a_trial(0, state=TrialState.COMPLETED, reports=2, value=0.8, best_value=0.9, best_report=1, ended_at=NOW)
    cut = a_trial(1, state=TrialState.PRUNED, reason=TrialReason.RUNG_CUT, reports=1, value=0.5, best_value=0.5, best_report=1)
    return StandIn(study, trials=(best, replace(cut, ended_at=NOW)))


def a_definition_file(tmp_path: Path) -> Path:
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(a_document()))
    return file


def test_studies_are_listed_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert tuneyard(a_finished_service(), "study", "ls") == 0
    heading, line = capsys.readouterr().out.splitlines()
    assert heading.split()[:3] == ["study", "state", "strategy"]
    assert line.split()[:5] == [STUDY_ID, "completed", "random", "2", "0.9000"]


@pytest.mark.parametrize(("form", "read"), [("json", json.loads), ("yaml", yaml.safe_load)])
def test_studies_are_listed_for_programs_with_nothing_else_on_stdout(
    capsys: pytest.CaptureFixture[str], form: str, read: Callable[[str], Any]
) -> None:
    assert tuneyard(a_finished_service(), "study", "ls", "-o", form) == 0
    (study,) = read(capsys.readouterr().out)
    assert (study["id"], study["best"]["trial"], study["trials"]) == (STUDY_ID, 0, {"completed": 1, "pruned": 1})


def test_what_is_listed_has_no_colours_off_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    tuneyard(a_finished_service(), "study", "ls")
    assert "\x1b" not in capsys.readouterr().out


def test_no_more_studies_are_printed_than_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    service = StandIn(a_study("a-1"), a_study("b-2"), a_study("c-3"))
    service.page_size = 1
    assert tuneyard(service, "study", "ls", "--limit", "2", "-o", "json") == 0
    assert [study["id"] for study in json.loads(capsys.readouterr().out)] == ["a-1", "b-2"]
    assert len(service.requests) == 2


def test_filters_reach_the_service() -> None:
    service = StandIn()
    tuneyard(service, "study", "ls", "--state", "running", "--state", "queued", "--name", "int", "--order", "name")
    query = service.requests[0].url.params
    assert (query.get_list("state"), query["name"], query["order"]) == (["running", "queued"], "int", "name")


def test_one_study_is_shown_with_its_best_trial_and_its_page_in_mlflow(capsys: pytest.CaptureFixture[str]) -> None:
    assert tuneyard(a_finished_service(), "study", "get", STUDY_ID) == 0
    shown = capsys.readouterr().out
    assert "0.9000 validation/accuracy (trial 0, report 1)" in shown
    assert "http://127.0.0.1:8080/mlflow/#/experiments/7/runs" in shown


def test_a_study_is_shown_with_what_its_checkpoints_take_and_what_is_wrong_with_it(capsys: pytest.CaptureFixture[str]) -> None:
    service = StandIn(a_study(checkpoints={"max_total_gb": 0.5}))
    service.footprint = Footprint(600_000_000, NOW, "It is too much.", (3, 5))
    assert tuneyard(service, "study", "get", STUDY_ID) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "600.0 MB of 500.0 MB. It is too much. The models of these trials are gone from the disk: 3, 5." in shown


def test_a_detached_study_is_started_and_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    service = StandIn()
    assert tuneyard(service, "study", "apply", str(a_definition_file(tmp_path)), "--detach", "-o", "json") == 0
    assert json.loads(capsys.readouterr().out)["id"] == STUDY_ID
    assert service.asked() == ["POST /v1/studies"]


def test_a_definition_comes_from_stdin_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    service = StandIn()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"name: piped\n")))
    tuneyard(service, "study", "apply", "-", "--detach")
    assert service.requests[0].content == b"name: piped\n"


@pytest.mark.parametrize(("end", "code"), [("completed", 0), ("stopped", 0), ("failed", 8), ("cancelled", 8)])
def test_a_watched_study_ends_the_command_with_its_own_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], end: str, code: int
) -> None:
    service = StandIn()
    service.streams = [[an_event(1, EventKind.STUDY_STATE, state=end)]]
    assert tuneyard(service, "study", "apply", str(a_definition_file(tmp_path)), "-o", "json") == code
    assert json.loads(capsys.readouterr().out)["state"] == end


def test_a_watched_study_is_told_line_by_line_on_stderr_off_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    service = StandIn(trials=(a_trial(0, state=TrialState.RUNNING, reports=1, value=0.5, best_value=0.5, best_report=1),))
    service.streams = [
        [an_event(1, EventKind.TRIAL_REPORT, trial=0), an_event(2, EventKind.STUDY_STATE, state="completed")],
    ]
    assert tuneyard(service, "study", "watch", STUDY_ID) == 0
    told = capsys.readouterr().err.splitlines()
    assert told[:4] == [
        f"study {STUDY_ID} queued",
        "mlflow http://127.0.0.1:8080/mlflow/#/experiments/7/runs",
        "trial 0 proposed: learning_rate=0.001",
        "trial 0 report 1/3: validation/accuracy 0.5000  (best so far)",
    ]
    assert told[-1] == f"study {STUDY_ID} completed"


def test_a_watch_says_while_it_lasts_that_the_service_is_away() -> None:
    back = Event()

    class Leaving(Client):
        def events(self, *_: Any, on_connection: Callable[[str | None], None] | None = None, **__: Any) -> Iterator[EventView]:
            assert on_connection is not None
            on_connection("refused")
            assert back.wait(60)
            on_connection(None)
            service.studies[STUDY_ID] = replace(a_study(), state=StudyState.COMPLETED, ended_at=NOW)
            yield EventView.of(an_event(1, EventKind.STUDY_STATE, state="completed"))

    service = StandIn()
    shown = boards(Leaving("http://127.0.0.1:1", TOKEN, transport=service), STUDY_ID)
    assert next(shown).away is None
    assert next(shown).away == "refused"
    back.set()
    assert [board.away for board in shown][-1] is None


def test_an_interrupted_watch_says_how_to_watch_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("service.cli.watch.watch", interrupt)
    assert tuneyard(StandIn(), "study", "watch", STUDY_ID) == 130
    assert f"tuneyard study watch {STUDY_ID}" in capsys.readouterr().err


def test_a_watch_that_takes_too_long_has_an_exit_code_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    service = StandIn()
    service.streams = [[]] * 20
    assert tuneyard(service, "study", "watch", STUDY_ID, "--timeout", "0") == 9
    assert "has not ended" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["stop", "cancel"])
def test_a_study_is_asked_to_end(verb: str) -> None:
    service = StandIn()
    assert tuneyard(service, "study", verb, STUDY_ID) == 0
    assert service.asked() == [f"POST /v1/studies/{STUDY_ID}:{verb}"]


def test_a_study_is_removed_when_confirmed_and_what_went_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    service = StandIn()
    assert tuneyard(service, "study", "rm", STUDY_ID, "--yes") == 0
    assert service.asked() == [f"DELETE /v1/studies/{STUDY_ID}"]
    said = capsys.readouterr().err
    assert "12 trials with 27 reports, and 548.0 MB of the disk" in said
    assert "MLflow" in said


def test_a_study_is_not_removed_when_nobody_can_confirm(monkeypatch: pytest.MonkeyPatch) -> None:
    service = StandIn()
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    assert (tuneyard(service, "study", "rm", STUDY_ID), service.requests) == (2, [])


def test_trials_are_listed_with_a_column_for_each_parameter(capsys: pytest.CaptureFixture[str]) -> None:
    assert tuneyard(a_finished_service(), "trial", "ls", STUDY_ID) == 0
    heading, first, second = capsys.readouterr().out.splitlines()
    assert heading.split() == ["trial", "state", "reports", "last", "best", "learning_rate"]
    assert first.split() == ["0", "completed", "2/3", "0.8000", "0.9000", "0.001"]
    assert second.split()[:3] == ["1", "pruned", "1/3"]


def test_one_trial_is_shown_with_its_reports_and_the_last_line_of_each_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert tuneyard(a_finished_service(), "trial", "get", STUDY_ID, "0") == 0
    shown = capsys.readouterr().out
    assert "0.9000 at report 1" in shown
    assert "validation/accuracy" in shown
    assert "MemoryError: 3 GB" in shown
    assert "Traceback" not in shown


def test_one_trial_is_printed_for_programs_as_the_api_has_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert tuneyard(a_finished_service(), "trial", "get", STUDY_ID, "1", "-o", "json") == 0
    assert json.loads(capsys.readouterr().out)["reason"] == "rung_cut"


def test_a_studys_analysis_says_what_matters_and_how_the_best_was_found(capsys: pytest.CaptureFixture[str]) -> None:
    assert tuneyard(a_finished_service(), "study", "analysis", STUDY_ID) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "objective maximize validation/accuracy" in lines
    assert "importance from 12 trials, compared at report 2" in lines
    assert lines.index("weight_decay 70.0%") < lines.index("learning_rate 20.0%") < lines.index("batch_size 10.0%")
    best = lines[lines.index("trials reports after best trial validation/accuracy") + 1 :]
    assert best[0] == "1 2 20s 0 0.9000"
    assert len(best) < 12, "only the trials at which the best changed"


def test_all_of_a_studys_analysis_goes_to_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "analysis.json"
    assert tuneyard(a_finished_service(), "study", "analysis", STUDY_ID, "--to", str(file)) == 0
    assert len(json.loads(file.read_text())["parallel_coordinates"]["lines"]) == 12
    assert str(file) in capsys.readouterr().err


def test_an_analysis_that_cannot_be_written_is_a_usage_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tuneyard(a_finished_service(), "study", "analysis", STUDY_ID, "--to", str(tmp_path)) == 2
    assert "cannot write" in capsys.readouterr().err


def test_a_studys_analysis_is_printed_for_programs_as_the_api_has_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert tuneyard(a_finished_service(), "study", "analysis", STUDY_ID, "--output", "json") == 0
    assert json.loads(capsys.readouterr().out)["figures"]["slices"] == f"/v1/studies/{STUDY_ID}/analysis/slices.png"


def test_a_populations_lineage_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    copy = a_trial(1, bracket=1, parent=0, parent_report=1, reports=2)
    assert tuneyard(StandIn(trials=(a_trial(0, reports=1), copy)), "study", "lineage", STUDY_ID) == 0
    heading, *lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert heading == ["member", "reports", "trial", "learning_rate", "state", "value"]
    assert [line[:3] for line in lines] == [["0", "0-1", "0"], ["1", "0-1", "0"], ["1-2", "1", "0.001"]]


def test_the_front_of_a_study_is_shown_with_its_volume(capsys: pytest.CaptureFixture[str]) -> None:
    assert tuneyard(a_finished_service(), "study", "pareto", STUDY_ID, "--reference", "0.25") == 0
    heading, line, _, volume = capsys.readouterr().out.splitlines()
    assert heading.split() == ["trial", "validation/accuracy", "report", "state", "parameters"]
    assert line.split()[:4] == ["0", "0.9000", "1", "completed"]
    assert volume == "hypervolume 0.6500 up to validation/accuracy 0.2500"


def test_a_front_with_more_trials_than_are_printed_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    equals = tuple(a_trial(number, best_value=0.9, best_report=1) for number in range(5))
    assert tuneyard(StandIn(trials=equals), "study", "pareto", STUDY_ID, "--limit", "2", "--reference", "0.25") == 0
    assert [line for line in capsys.readouterr().out.splitlines() if " of " in line or "hypervolume" in line] == [
        "2 of 5 trials, those farthest from their neighbours: --limit shows more",
        "hypervolume 0.6500 up to validation/accuracy 0.2500",
    ]


def test_a_study_that_has_not_reported_has_no_front_to_show(capsys: pytest.CaptureFixture[str]) -> None:
    assert tuneyard(StandIn(trials=()), "study", "pareto", STUDY_ID) == 0
    assert "no trial has a report that counts yet" in capsys.readouterr().out


def test_a_study_without_a_population_says_that_it_has_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert tuneyard(StandIn(), "study", "lineage", STUDY_ID) == 0
    assert "only the strategy pbt copies trials" in capsys.readouterr().err


def test_a_trials_analysis_is_printed_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert tuneyard(a_finished_service(), "trial", "analysis", STUDY_ID, "1") == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[:2] == [f"trial 1 of {STUDY_ID}", "report 1"]
    assert "metrics.accuracy 0.5000" in lines
    assert lines[lines.index("mistakes: 12, the first 10") + 1 :][:2] == ["text predicted confidence", "text 0 buy 0.9000"]


@pytest.mark.parametrize(
    "line",
    [
        "study lineage ID", "study pareto ID", "study analysis ID", "study rm ID --yes", "trial analysis ID 0",
        "trial add ID -p learning_rate=1e-3", "dataset rm intents --yes",
    ],
)  # fmt: skip
@pytest.mark.parametrize(("form", "read"), [("json", json.loads), ("yaml", yaml.safe_load)])
def test_whatever_shows_something_shows_it_to_programs_alike(
    capsys: pytest.CaptureFixture[str], line: str, form: str, read: Callable[[str], Any]
) -> None:
    assert tuneyard(a_finished_service(), *line.replace("ID", STUDY_ID).split(), "-o", form) == 0
    assert isinstance(read(capsys.readouterr().out), dict)


def test_every_command_with_an_output_has_it_under_the_same_names() -> None:
    def options(command: Any) -> Iterator[tuple[str, ...]]:
        for one in getattr(command, "commands", {}).values():
            yield from options(one)
        yield from (tuple(one.opts) for one in command.params if {"-o", "--output"} & set(one.opts))

    assert {frozenset(opts) for opts in options(typer.main.get_command(app))} == {frozenset(("--output", "-o"))}


def test_a_trials_analysis_is_printed_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    service = a_finished_service()
    assert tuneyard(service, "trial", "analysis", STUDY_ID, "1", "-o", "json") == 0
    assert service.asked() == [f"GET /v1/studies/{STUDY_ID}/trials/1/analysis"]
    printed = json.loads(capsys.readouterr().out)
    assert (printed["trial"], printed["report"], printed["analysis"]) == (1, 1, ANALYSIS)


def test_the_best_checkpoint_is_pulled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "best"
    assert tuneyard(a_finished_service(), "best", "pull", STUDY_ID, "--to", str(target), "-o", "json") == 0
    assert {name: (target / name).read_bytes() for name in CHECKPOINT} == CHECKPOINT
    assert [file["path"] for file in json.loads(capsys.readouterr().out)["files"]] == list(CHECKPOINT)


def test_another_trials_checkpoint_is_pulled_by_its_number(tmp_path: Path) -> None:
    service = a_finished_service()
    assert tuneyard(service, "best", "pull", STUDY_ID, "--to", str(tmp_path / "one"), "--trial", "1") == 0
    assert service.asked()[0] == f"GET /v1/studies/{STUDY_ID}/trials/1/checkpoint"


def test_a_pull_over_foreign_files_is_a_conflict_unless_forced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "best"
    target.mkdir()
    (target / "thesis.txt").touch()
    assert tuneyard(a_finished_service(), "best", "pull", STUDY_ID, "--to", str(target)) == 5
    assert "--force" in capsys.readouterr().err
    assert tuneyard(a_finished_service(), "best", "pull", STUDY_ID, "--to", str(target), "--force") == 0


def test_an_uploaded_file_is_named_as_a_study_names_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "train.csv").write_text("text,label\n")
    assert tuneyard(StandIn(), "dataset", "put", "intents", str(tmp_path / "train.csv")) == 0
    assert "dataset://intents/train.csv" in capsys.readouterr().out


@pytest.mark.parametrize(("name", "file"), [("bad name/x", "train.csv"), ("intents", "tr ain.csv"), ("..", "train.csv")])
def test_a_name_that_cannot_be_one_of_a_data_set_is_wrong_usage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, file: str
) -> None:
    service = StandIn()
    (tmp_path / file).touch()
    assert tuneyard(service, "dataset", "put", name, str(tmp_path / file)) == 2
    assert "use letters, digits" in capsys.readouterr().err
    assert service.requests == []


def test_data_sets_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert tuneyard(StandIn(), "dataset", "ls") == 0
    assert capsys.readouterr().out.splitlines()[1].split()[:2] == ["dataset://intents/train.csv", "4"]


@pytest.mark.parametrize(("file", "place"), [((), "intents"), (("train.csv",), "intents/files/train.csv")])
def test_a_data_set_or_a_file_of_it_is_deleted_by_who_says_yes(
    file: tuple[str, ...], place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    service = StandIn()
    assert tuneyard(service, "dataset", "rm", "intents", *file) == 2
    assert service.asked() == []
    assert tuneyard(service, "dataset", "rm", "intents", *file, "--yes") == 0
    assert service.asked() == [f"DELETE /v1/datasets/{place}"]
    assert "is deleted: 1 file, 839.1 kB" in capsys.readouterr().err


def test_a_login_link_is_all_that_login_prints(capsys: pytest.CaptureFixture[str]) -> None:
    assert tuneyard(StandIn(), "login") == 0
    assert capsys.readouterr().out == "http://127.0.0.1:8080/login?code=abc&next=%2Fmlflow%2F\n"


@pytest.mark.parametrize("line", ["version", "--version"])
def test_the_version_needs_no_service(capsys: pytest.CaptureFixture[str], line: str) -> None:
    assert run([line]) == 0
    assert capsys.readouterr().out == f"{__version__}\n"


@pytest.mark.parametrize(
    ("status", "code"), [(400, 4), (403, 6), (404, 3), (409, 5), (413, 4), (415, 4), (422, 4), (500, 1), (503, 7), (507, 10)]
)
def test_each_kind_of_refusal_has_its_exit_code(status: int, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    service = StandIn()
    service.failing = [a_problem(status, "What to do.")] * 4
    assert tuneyard(service, "study", "get", STUDY_ID) == code
    assert "error: What to do." in capsys.readouterr().err


def test_every_violation_of_a_refused_definition_is_printed_with_its_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    service = StandIn()
    violations = [{"pointer": "/space/x", "detail": "is not a key"}, {"pointer": "", "detail": "is odd"}]
    service.failing = [a_problem(422, "Wrong.", violations=violations)]
    assert tuneyard(service, "study", "apply", str(a_definition_file(tmp_path))) == 4
    assert capsys.readouterr().err.splitlines() == ["error: Wrong.", "  /space/x: is not a key", "  /: is odd"]


def test_no_violation_is_printed_twice(capsys: pytest.CaptureFixture[str]) -> None:
    first, second = {"pointer": "/budgt", "detail": "is no key"}, {"pointer": "", "detail": "needs a `space`"}
    service = StandIn()
    service.failing = [
        a_problem(422, "/budgt: is no key", violations=[first]),
        a_problem(422, "/budgt: is no key (and 1 more)", violations=[first, second], title="It cannot be run"),
        a_problem(422, "query parameter `limit`: 0", violations=[{"pointer": "limit", "detail": "query parameter `limit`: 0"}]),
    ]
    for said in (
        ["error: /budgt: is no key"],
        ["error: It cannot be run", "  /budgt: is no key", "  /: needs a `space`"],
        ["error: query parameter `limit`: 0"],
    ):
        assert tuneyard(service, "study", "get", STUDY_ID) == 4
        assert capsys.readouterr().err.splitlines() == said


def test_a_refusal_names_commands_and_not_requests(capsys: pytest.CaptureFixture[str]) -> None:
    service = StandIn()
    service.failing = [a_problem(404, "There is no study 'x': `GET /v1/studies` lists those there are.")]
    assert tuneyard(service, "study", "get", "x") == 3
    assert capsys.readouterr().err == "error: There is no study 'x': `tuneyard study ls` lists those there are.\n"


def test_a_service_that_does_not_answer_has_an_exit_code_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    service = StandIn()
    service.failing = [httpx.ConnectError("refused")] * 9
    assert tuneyard(service, "study", "ls") == 7
    assert "tuneyard serve" in capsys.readouterr().err


@pytest.mark.parametrize(
    "line", ["nonsense", "study get", "study ls -o xml", "study apply /no/such/file", "--token-file /no/such/file study ls"]
)
def test_wrong_usage_has_an_exit_code_of_its_own(line: str) -> None:
    assert tuneyard(StandIn(), *line.split()) == 2


def test_the_token_comes_from_a_file_when_one_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TUNEYARD_TOKEN")
    (tmp_path / "secret").write_text(TOKEN + "\n")
    assert tuneyard(StandIn(), "study", "ls") == 6
    assert tuneyard(StandIn(), "--token-file", str(tmp_path / "secret"), "study", "ls") == 0


def test_a_file_that_holds_no_token_is_wrong_usage_and_its_content_is_printed_nowhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, service = tmp_path / "secret", StandIn()
    file.write_text(f"{TOKEN}\nsecond line\n")
    assert tuneyard(service, "--token-file", str(file), "study", "ls") == 2
    printed = "".join(capsys.readouterr())
    assert str(file) in printed
    assert TOKEN not in printed
    assert "second line" not in printed
    assert service.requests == []


def test_a_token_that_was_sent_and_does_not_count_is_told_from_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TUNEYARD_TOKEN", "wrong-one")
    assert tuneyard(StandIn(), "study", "ls") == 6
    said = capsys.readouterr().err
    assert "does not take the token of TUNEYARD_TOKEN: it is wrong, has run out or was revoked" in said
    assert "wrong-one" not in said
    monkeypatch.delenv("TUNEYARD_TOKEN")
    assert tuneyard(StandIn(), "--home", str(tmp_path / "nothing"), "study", "ls") == 6
    assert f"wants a token: there is none in {tmp_path / 'nothing'}" in capsys.readouterr().err


def test_what_is_no_address_is_wrong_usage_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    service = StandIn()
    assert tuneyard(service, "--url", "ftp://127.0.0.1:8081", "study", "ls") == 2
    assert tuneyard(service, "--project", "b\u00e9", "study", "ls") == 2
    assert service.requests == []
    assert tuneyard(service, "--url", "127.0.0.1:8081", "study", "ls") == 0


def commands() -> Iterator[tuple[list[str], Any]]:
    """Every group of commands."""
    yield [], (root := typer.main.get_command(app))
    yield from (([name], one) for name, one in getattr(root, "commands", {}).items() if hasattr(one, "commands"))


@pytest.mark.parametrize(
    ("path", "group"), list(commands()), ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_no_line_of_a_list_of_commands_is_cut(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, path: list[str], group: Any
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run([*path, "--help"]) == 0
    _usage, *lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.endswith("...")] == []
    assert sum(line.strip().startswith(tuple(group.commands)) for line in lines) >= len(group.commands)


def test_the_exit_codes_are_part_of_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    assert "7 service unreachable" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("line", "absent"), [(["--help"], (*HEAVY, "httpx", "pydantic")), (["study", "ls"], HEAVY), (["version"], (*HEAVY, "httpx"))]
)
def test_a_command_imports_only_what_it_needs(line: list[str], absent: tuple[str, ...]) -> None:
    script = _ANSWERED_BY_NOBODY + (
        f"code = run({line!r}, Session(transport=Nobody()))\nprint(code, [name for name in {absent!r} if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=100)
    assert done.stdout.splitlines()[-1] == "0 []"


_ANSWERED_BY_NOBODY = """
import sys
from service.cli import run
from service.cli.app import app
from service.cli.session import Session

class Nobody:
    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def close(self):
        pass

    def handle_request(self, request):
        import httpx
        return httpx.Response(200, json={"items": [], "cursor": None})

"""


def test_a_trial_is_shown_with_why_it_was_tried_and_cut(capsys: pytest.CaptureFixture[str]) -> None:
    assert tuneyard(a_finished_service(), "trial", "get", STUDY_ID, "0") == 0
    shown = capsys.readouterr().out
    assert "Proposed by `tpe`, a model of 12 trials." in shown
    assert "Cut by `hyperband` at report 1: 0.5 is number 9 of 9; the cut was at 0.75." in shown


def test_a_study_is_shown_with_the_plan_that_was_made_for_it(capsys: pytest.CaptureFixture[str]) -> None:
    study = replace(a_study(strategy={"kind": "auto"}), warm_start=WarmStart(28, {"out_of_range": 3, "no_value": 1}))
    assert tuneyard(StandIn(study), "study", "get", STUDY_ID) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert study.definition.plan.reason
    assert study.definition.plan.reason in shown
    assert "28 trials of earlier studies; 4 left out (3 out_of_range, 1 no_value)" in shown


def test_parameters_are_asked_for_as_a_definition_would_say_them(capsys: pytest.CaptureFixture[str]) -> None:
    service = StandIn()
    values = ("learning_rate=3e-5", "optimizer=adamw", "lora.rank=8", "freeze=true", "layers=[1, 2]")
    assert tuneyard(service, "trial", "add", STUDY_ID, *(part for value in values for part in ("-p", value))) == 0
    assert json.loads(service.requests[0].content)["parameters"] == {
        "learning_rate": 3e-5, "optimizer": "adamw", "lora.rank": 8, "freeze": True, "layers": [1, 2],
    }  # fmt: skip
    assert "2 in the queue" in capsys.readouterr().out


@pytest.mark.parametrize("line", [["-p", "learning_rate"], ["-p", "=1"], ["-p", "a=1", "-p", "a=2"], ["-p", "a=["], []])
def test_parameters_of_another_form_are_wrong_usage_and_nothing_is_asked(line: list[str]) -> None:
    service = StandIn()
    assert tuneyard(service, "trial", "add", STUDY_ID, *line) == 2
    assert service.requests == []
