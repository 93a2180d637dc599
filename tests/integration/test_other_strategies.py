"""The other strategies over HTTP, on real workers: what the store says is what the simulator decides on the same curves."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from service.client import Client
from service.domain.study import Study, StudyState
from service.domain.trial import Trial, TrialReason
from service.search import simulate
from tests.integration.agreement import Finished, check_mlflow, check_store, finished
from tests.integration.test_four_strategies import a_study, run_to_end
from tests.running import RunningService

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(900)]

_SPACE = {
    "learning_rate": {"kind": "float", "low": 1e-4, "high": 1e-2, "log": True},
    "dropout": {"kind": "float", "low": 0.0, "high": 0.3},
}
_CONDITIONAL = {
    "learning_rate": {"kind": "float", "low": 1e-4, "high": 1e-2, "log": True},
    "optimizer": {"kind": "categorical", "choices": ["adamw", "sgd"]},
    "momentum": {"kind": "float", "low": 0.5, "high": 0.95, "when": {"optimizer": "sgd"}},
}
_MEDIAN = {"kind": "median", "min_trials": 1, "sampler": {"kind": "random"}}
_BOHB = {"kind": "hyperband", "sampler": {"kind": "tpe", "startup_trials": 3, "random_share": 0.2}}


_STUDIES: Mapping[str, tuple[dict[str, Any], int, dict[str, Any]]] = {
    "sobol": ({"kind": "sobol"}, 1, {"budget": {"trials": 3}}),
    "cmaes": ({"kind": "bayesian", "sampler": {"kind": "cmaes", "population": 4}}, 1, {"budget": {"trials": 5}}),
    "median": (_MEDIAN, 3, {"budget": {"trials": 5}}),
    "bohb": (
        _BOHB, 3, {"budget": {"trials": 8}, "space": _CONDITIONAL, "constraints": ["learning_rate * max_length <= 1"]},
    ),
    "auto": ({"kind": "auto"}, 3, {"budget": {"trials": 12}, "initial": [{"learning_rate": 1e-3, "dropout": 0.1}]}),
}  # fmt: skip


@pytest.fixture(scope="module")
def begun(service: RunningService, client: Client) -> Mapping[str, str]:
    """All of them at once: each has one worker, so that its reports come in one order, here and in the simulator."""
    ids = {}
    for name, (strategy, epochs, changes) in _STUDIES.items():
        alone = {"resources": {"max_concurrent_trials": 1}}
        document = a_study(service, name=name, strategy=strategy, **{"space": _SPACE, **alone, **changes})
        document["trainer"]["epochs"] = epochs
        ids[name] = client.apply(document).id
    return ids


@pytest.mark.parametrize("name", _STUDIES)
def test_the_store_agrees_with_the_simulator(
    begun: Mapping[str, str], service: RunningService, client: Client, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    found = finished(client, client.wait(begun[name], timeout=800))
    assert found.study.state is StudyState.COMPLETED
    check_store(found)
    check_mlflow(service, found, monkeypatch)
    assert [told(trial.parameters, trial) for trial in found.trials] == [
        told(trial.parameters, trial) for _, trial in sorted(simulated(found).items())
    ]
    for trial in found.trials:
        decisions = client.trial(found.study.id, trial.number).decisions or []
        assert decisions[0].kind == "proposed"
        assert (decisions[-1].kind == "cut") == (trial.reason in {TrialReason.RUNG_CUT, TrialReason.BELOW_MEDIAN})


def told(parameters: Mapping[str, Any], trial: Any) -> tuple[Any, ...]:
    return dict(parameters), trial.reports, trial.rung, trial.bracket, trial.reason, trial.best_value


def simulated(found: Finished) -> Mapping[int, Trial]:
    metric = found.study.definition.objective.metric
    curves = {
        json.dumps(trial.parameters, sort_keys=True): [report.metrics[metric] for report in found.reports[trial.number]]
        for trial in found.trials
    }
    now = datetime(2030, 1, 1, tzinfo=UTC)
    study = Study(id=found.study.id, definition=found.study.definition, created_at=now)
    # A report that no real trial gave is an index error: the two decided differently.
    return simulate(
        study, lambda parameters, report: float(curves[json.dumps(parameters, sort_keys=True)][report - 1] or 0), workers=1
    ).history.trials


def test_several_objectives_have_a_front_whose_models_can_be_pulled(
    service: RunningService, client: Client, tmp_path: Path
) -> None:
    document = a_study(service, name="front", strategy={"kind": "bayesian", "sampler": {"kind": "nsga2", "population": 4}})
    del document["objective"]
    document |= {
        "space": _SPACE,
        "objectives": [
            {"metric": "validation/accuracy", "direction": "maximize"},
            {"metric": "validation/loss", "direction": "minimize"},
        ],
        "outcomes": ["model/megabytes <= 50"],
        "budget": {"trials": 6},
    }
    found = run_to_end(client, document)
    assert found.study.state is StudyState.COMPLETED
    assert all(report.metrics["model/megabytes"] for reports in found.reports.values() for report in reports)
    front = client.pareto(found.study.id)
    assert front.trials
    for member in front.trials:
        client.pull(found.study.id, tmp_path / str(member.trial), trial=member.trial)
        assert (tmp_path / str(member.trial) / "model.safetensors").exists()


def test_the_best_configurations_train_again_and_the_study_names_a_winner(
    service: RunningService, client: Client, tmp_path: Path
) -> None:
    document = a_study(service, name="final", strategy={"kind": "random"}, space=_SPACE, budget={"trials": 3})
    document |= {"final": {"top": 2, "seeds": 2}}
    found = run_to_end(client, document)
    assert found.study.state is StudyState.COMPLETED
    assert len(found.trials) == 3 + 2 * 2
    final = client.final(found.study.id)
    assert [len(one.runs) for one in final.finalists] == [2, 2]
    assert final.verdict
    best = client.best(found.study.id)
    assert best.repeats is not None
    client.pull(found.study.id, tmp_path / "best")
    assert (tmp_path / "best" / "model.safetensors").exists()


def test_a_study_is_asked_for_a_configuration_and_forked(service: RunningService, client: Client) -> None:
    document = a_study(service, name="asked", strategy={"kind": "random"}, space=_SPACE, budget={"trials": 6})
    study = client.apply(document)
    asked = {"learning_rate": 2e-3, "dropout": 0.05}
    client.request_trial(study.id, asked)
    client.wait(study.id, timeout=300)
    (trial,) = [trial for trial in client.trials(study.id) if trial.parameters == asked]
    decisions = client.trial(study.id, trial.number).decisions or []
    assert decisions[0].by == "request"
    fork = client.fork(study.id, changes={"budget": {"trials": 1}})
    assert fork.warm_start is not None
    assert fork.warm_start.carried_over == 6
    assert client.wait(fork.id, timeout=300).state is StudyState.COMPLETED
    analysis = client.study_analysis(study.id)
    assert {one.parameter for one in analysis.importance.parameters} == set(_SPACE)
