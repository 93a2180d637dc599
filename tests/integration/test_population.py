"""Population-based training over HTTP: on the real trainer, on real workers, to the pulled checkpoint."""

from pathlib import Path
from typing import Any

import pytest

from service.client import Client
from service.domain.study import StudyReason, StudyState
from service.domain.trial import AttemptOutcome, TrialReason, TrialState
from tests.integration.agreement import Finished, check_checkpoint, check_mlflow, check_store, finished
from tests.integration.test_four_strategies import a_study, kill_driver_after, run_to_end
from tests.running import RunningService

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(700)]

_SPACE = {
    "learning_rate": {"kind": "float", "low": 1e-4, "high": 1e-2, "log": True},
    "dropout": {"kind": "float", "low": 0.0, "high": 0.3},
}


def a_population(service: RunningService, **strategy: Any) -> dict[str, Any]:
    document = a_study(service, name="population", strategy={"kind": "pbt", "population": 3, **strategy}, space=_SPACE)
    document["trainer"] |= {"epochs": 3, "schedule": "constant", "warmup_fraction": 0.0}
    return document


def check_population(client: Client, found: Finished) -> None:
    """Each member was trained to its end, and each copy goes on with its parent's weights under its own parameters."""
    assert found.study.state is StudyState.COMPLETED
    check_store(found)
    lineage = client.lineage(found.study.id)
    assert [member.member for member in lineage.members] == [0, 1, 2]
    by_number = {trial.number: trial for trial in found.trials}
    for member in lineage.members:
        assert (member.stretches[0].from_report, member.stretches[-1].to_report) == (0, 3)
        assert by_number[member.trial].reason is TrialReason.EPOCHS_DONE
    assert sum(len(reports) for reports in found.reports.values()) == 9, "nothing was trained twice"
    copies = [trial for trial in found.trials if trial.parent is not None]
    assert len(copies) == 2, "one after each of two comparisons"
    for copy in copies:
        first = found.reports[copy.number][0]
        parents = {report.number: report for trial in found.trials for report in found.reports[trial.number]}
        assert first.step == parents[copy.parent_report].step + parents[1].step
        assert first.metrics["train/learning_rate"] == pytest.approx(copy.parameters["learning_rate"])
    ended = [trial for trial in found.trials if trial.state is TrialState.PRUNED]
    assert [trial.reason for trial in ended] == [TrialReason.EXPLOITED] * 2
    for trial in ended:
        decisions = client.trial(found.study.id, trial.number).decisions or []
        assert decisions[-1].sentence.startswith(f"Cut by `pbt` at report {trial.reports}: ")


def test_a_population_is_trained_and_its_worst_become_copies_of_its_best(
    service: RunningService, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = run_to_end(client, a_population(service))
    check_population(client, found)
    check_mlflow(service, found, monkeypatch)
    check_checkpoint(client, found, service.rows / "validation.csv", tmp_path / "best")
    assert found.study.reason is StudyReason.BUDGET_SPENT


@pytest.mark.slow
def test_a_population_whose_driver_is_killed_goes_on_from_its_members_states(
    service: RunningService, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = client.apply({**a_population(service), "name": "killed population"})
    kill_driver_after(service, client, study, reports=4)
    found = finished(client, client.wait(study.id, timeout=600))
    check_population(client, found)
    check_mlflow(service, found, monkeypatch)
    check_checkpoint(client, found, service.rows / "validation.csv", tmp_path / "best")
    assert any(attempt.outcome is AttemptOutcome.LOST for attempts in found.attempts.values() for attempt in attempts)
