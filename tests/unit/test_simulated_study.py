"""A study of the trainer that trains nothing: all that a model and rows are asked for elsewhere is not asked for here."""

import io
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from service.api.preview import report_time_of
from service.catalog.catalog import LocalCatalog
from service.catalog.datasets import LocalDatasetStore
from service.catalog.hub import HubCache
from service.catalog.models import Models
from service.catalog.pinning import pin
from service.catalog.sources import Sources
from service.checkpoints.local import LocalCheckpointStore
from service.cli.tables import study_table
from service.domain.definition import StudyDefinition, parse_definition
from service.domain.errors import InvalidDefinition
from service.domain.ports import LocalSources
from service.domain.study import Study
from service.execution.assignment import Assignment, Progress, assign
from service.execution.attempt import AttemptRun
from service.store.memory import memory_store
from service.tracking.records import study_batch, trial_batch
from tests.builders import NOW, a_trial
from tests.fakes import FakeClock
from tests.unit.stand_in import a_study_view
from trainers.configs import SimulatedConfig

LOSS = "(log(learning_rate) + 7) ** 2 / 10 + 1 / epoch"
RATE = {"kind": "float", "low": 1e-5, "high": 1e-1, "log": True}
WIDTH = {"kind": "int", "low": 8, "high": 64}


def a_definition(trainer: dict[str, Any] | None = None, **changes: Any) -> StudyDefinition:
    document: dict[str, Any] = {
        "name": "dry",
        "trainer": {"kind": "simulated", "metrics": {"validation/loss": LOSS, "test/loss": "width"}, **(trainer or {})},
        "space": {"values": {"learning_rate": RATE}, "values.width": WIDTH},
        "objective": {"metric": "validation/loss", "direction": "minimize"},
        "strategy": {"kind": "random"},
        "budget": {"trials": 4},
    }
    return parse_definition({**document, **changes})


def violations(**changes: Any) -> dict[str, str]:
    with pytest.raises(InvalidDefinition) as raised:
        a_definition(**changes)
    return {violation.pointer: violation.detail for violation in raised.value.violations}


def a_catalog(root: Path) -> LocalCatalog:
    models = Models(roots=(), cache=HubCache(root / "hub"), hub=None)
    return LocalCatalog(models, Sources(LocalDatasetStore(root / "datasets", 1000), root / "builtin"))


def a_study(**changes: Any) -> Study:
    return Study(id="dry-abc123", definition=a_definition(**changes), created_at=NOW)


def test_a_space_searches_values_that_the_trainer_does_not_name() -> None:
    study = a_definition()
    assert set(study.space) == {"values.learning_rate", "values.width"}
    config = study.configured({"values.learning_rate": 0.5, "values.width": 9}, seed=3)
    assert isinstance(config, SimulatedConfig)
    assert (dict(config.values.known), config.seed) == ({"learning_rate": 0.5, "width": 9}, 3)


def test_constraints_name_values_that_are_searched_and_those_that_are_set() -> None:
    study = a_definition(trainer={"values": {"depth": 4}}, constraints=["values.width * values.depth <= 40"])
    assert all(study.search_space.meets_constraints({"values.width": width}) is (width <= 10) for width in (8, 10, 11))
    assert "`values.depth`" in violations(trainer={"values": {"depth": 4}}, constraints=["values.dpth > 2"])["/constraints/0"]


@pytest.mark.parametrize(
    ("changes", "place", "wanted"),
    [
        (
            {"space": {"values.learning_rate": {**RATE, "low": -1.0, "log": False}, "values.width": WIDTH}},
            "/trainer",
            "no answer",
        ),
        (
            {"space": {"learning_rate": RATE, "values.width": WIDTH, "values.learning_rate": RATE}},
            "/space/learning_rate",
            "did you mean `values.learning_rate`?",
        ),
        ({"space": {"values.width": WIDTH}}, "/trainer", "names `learning_rate`, which has no value"),
        ({"space": {"preset": "text-classification/full"}}, "/space/preset", "no presets for trainer `simulated`"),
        ({"objective": {"metric": "test/loss", "direction": "minimize"}}, "/objective/metric", "reports `validation/loss`: name"),
        ({"outcomes": ["model/megabytes <= 9"]}, "/outcomes/0", "reports `validation/loss`: name"),
        ({"trainer": {"measure": ["megabytes"]}}, "/trainer/measure", "is not a key here"),
        ({"trainer": {"data": {"train": "dataset://a/b.csv"}}}, "/trainer/data", "is not a key here"),
    ],
)
def test_what_does_not_fit_a_simulation_is_refused(changes: dict[str, Any], place: str, wanted: str) -> None:
    assert wanted in violations(**changes)[place]


def test_a_value_at_the_end_of_a_range_for_which_a_formula_has_no_answer_is_refused() -> None:
    space = {"values.learning_rate": RATE, "values.width": {"kind": "int", "low": 1, "high": 64}}
    metrics = {"validation/loss": f"{LOSS} + 1 / (64 - width)"}
    assert "`values.width` cannot be 64" in violations(trainer={"metrics": metrics}, space=space)["/space/values.width/high"]


def test_the_size_of_the_model_is_a_formula_too() -> None:
    metrics = {"validation/loss": LOSS, "model/megabytes": "width / 10"}
    assert a_definition(trainer={"metrics": metrics}, outcomes=["model/megabytes <= 3"]).limits[0].limit == 3


def test_a_population_may_change_values_in_the_middle_of_a_trial() -> None:
    study = a_definition(trainer={"epochs": 9}, strategy={"kind": "pbt", "population": 3, "interval": 3})
    assert study.plan.strategy.kind == "pbt"


def test_it_needs_no_model_and_no_rows(tmp_path: Path) -> None:
    catalog = a_catalog(tmp_path)
    catalog.check(a_definition())
    found = pin(catalog.fetch(a_definition()), tmp_path / "pinned")
    assert found == LocalSources(models={}, sources={})


def test_requirements_of_a_model_that_is_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidDefinition) as raised:
        a_catalog(tmp_path).check(a_definition(requirements={"licences": ["mit"]}))
    assert [violation.pointer for violation in raised.value.violations] == ["/requirements"]


def an_attempt(root: Path, **changes: Any) -> list[Progress]:
    trial = a_trial(study_id="dry-abc123", parameters={"values.learning_rate": 1e-3, "values.width": 64}, attempts=1)
    study = a_study(**changes)
    assignment = assign(study, trial, LocalSources(models={}, sources={}), root / "checkpoints", root / "cache")
    run = AttemptRun(Assignment.from_json(assignment.to_json()), "host:1", FakeClock())
    steps = [run.advance()]
    while steps[-1].outcome is None:
        steps.append(run.advance())
    return steps


def test_an_attempt_reports_tests_and_exports(tmp_path: Path) -> None:
    steps = an_attempt(tmp_path)
    assert [report.number for step in steps for report in step.reports] == [1, 2, 3]
    assert (steps[-1].outcome, steps[-1].reports[-1].metrics["test/loss"]) == ("done", 64.0)
    store = LocalCheckpointStore(tmp_path / "checkpoints")
    assert [file.path for file in store.manifest("dry-abc123", 0, 3).files] == ["README.md", "simulation.json", "tuneyard.json"]
    assert store.analysis("dry-abc123", 0, 3)["task"] == "simulated"


def test_its_card_tells_of_no_model(tmp_path: Path) -> None:
    an_attempt(tmp_path)
    with LocalCheckpointStore(tmp_path / "checkpoints").open("dry-abc123", 0, 3, "README.md") as file:
        card = file.read().decode()
    assert yaml.safe_load(card.split("---")[1]) == {"tags": ["tuneyard"]}
    assert "`simulated`, which has no model" in card
    assert "weights" not in card


@pytest.mark.parametrize("reason", ["diverged", "out_of_memory", "trainer_error"])
def test_an_attempt_fails_for_the_reason_that_was_asked_for(tmp_path: Path, reason: str) -> None:
    last = an_attempt(tmp_path, trainer={"fails": {reason: "epoch == 2"}})[-1]
    assert (last.outcome, last.reason, len(last.reports)) == ("failed", reason, 1)


def test_the_parameters_in_the_tracker_hold_formulas_and_values() -> None:
    study, trial = a_study(), a_trial(study_id="dry-abc123", parameters={"values.learning_rate": 1e-3, "values.width": 64})
    assert study_batch(study, {}, [], is_new=True).params["metrics.validation/loss"] == LOSS
    params = trial_batch(study, trial, [], is_new=True).params
    assert (params["values.learning_rate"], params["values.width"]) == ("0.001", "64")


def test_the_time_of_a_report_speaks_of_no_model_and_no_rows() -> None:
    said = report_time_of(memory_store(), a_definition()).sentence
    assert said.startswith("No trial with trainer `simulated` on the same kind of device")


def test_a_table_of_the_study_leaves_the_model_out() -> None:
    out = io.StringIO()
    Console(file=out, width=100).print(study_table(a_study_view(a_study()), None))
    assert "strategy" in out.getvalue()
    assert "model" not in out.getvalue()


def test_a_definition_comes_back_as_it_was_stored() -> None:
    study = a_definition(trainer={"values": {"depth": 4, "optimizer": "adam", "bias": None}})
    assert StudyDefinition.model_validate_json(study.model_dump_json()) == study
