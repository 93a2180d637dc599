"""What must be true of every study that ran: the store, MLflow and the pulled checkpoint say the same."""

import itertools
import json
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from service.api.schemas import AttemptView, ReportView, StudyView, TrialView
from service.client import Client
from service.domain.trial import AttemptOutcome, TrialState
from tests.running import RunningService, wait_until

_STATUS = {
    TrialState.COMPLETED: "FINISHED",
    TrialState.PRUNED: "FINISHED",
    TrialState.STOPPED: "KILLED",
    TrialState.CANCELLED: "KILLED",
    TrialState.FAILED: "FAILED",
    TrialState.INFEASIBLE: "FAILED",
}
_MIRROR_SECONDS = 120


@dataclass(frozen=True)
class Finished:
    """A study that has ended, with everything the API says of it."""

    study: StudyView
    trials: list[TrialView]
    reports: dict[int, list[ReportView]]
    attempts: dict[int, list[AttemptView]]


def finished(client: Client, study: StudyView) -> Finished:
    trials = list(client.trials(study.id))
    return Finished(
        study,
        trials,
        {trial.number: client.reports(study.id, trial.number) for trial in trials},
        {trial.number: client.attempts(study.id, trial.number) for trial in trials},
    )


def check_store(found: Finished) -> None:
    """Every trial has ended, for a reason; reports and attempts are whole and agree with the trial."""
    metric, direction = found.study.definition.objective.metric, found.study.definition.objective.direction
    assert [trial.number for trial in found.trials] == list(range(len(found.trials)))
    for trial in found.trials:
        reports, attempts = found.reports[trial.number], found.attempts[trial.number]
        assert trial.state.is_end
        assert trial.reason is not None
        assert trial.reason.end is trial.state
        assert [report.number for report in reports] == list(range(trial.parent_report + 1, trial.reports + 1))
        assert [attempt.number for attempt in attempts] == list(range(1, trial.attempts + 1))
        assert all(attempt.outcome is not None for attempt in attempts)
        for report in reports:  # each was trained by the attempt that it names, and by no other
            attempt = attempts[report.attempt - 1]
            assert attempt.first < report.number <= attempt.until
        for earlier, later in itertools.pairwise(attempts):
            known = trial.parent_report + sum(report.attempt <= earlier.number for report in reports)
            assert earlier.first <= later.first <= known
        values = [report.metrics[metric] for report in reports]
        best = max(values) if direction == "maximize" else min(values)  # type: ignore[type-var]
        assert trial.best_value == best
        assert trial.best_report == reports[values.index(best)].number
        assert [report.step for report in reports] == sorted({report.step for report in reports})
    assert found.study.best is not None
    winner = found.study.final.winner if found.study.final else None
    ranked = [
        trial.best_value
        for trial in found.trials
        # A winner is chosen by the mean of its finished runs: a single run of another one may be better than its best.
        if trial.best_value is not None and trial.repeats == winner and (winner is None or trial.state is TrialState.COMPLETED)
    ]
    assert found.study.best.value == (max(ranked) if direction == "maximize" else min(ranked))


def check_mlflow(service: RunningService, found: Finished, monkeypatch: Any) -> None:
    """MLflow, read with its own client through the gateway, holds what the store holds: runs, parents, steps, states."""
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", service.token)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    reader = MlflowClient(f"{service.url}/mlflow")
    runs = _settled_runs(reader, found)
    parents = [run for run in runs if "tuneyard.trial" not in run.data.tags]
    children = {run.data.tags["tuneyard.trial"]: run for run in runs if "tuneyard.trial" in run.data.tags}
    (parent,) = parents
    assert len(runs) == 1 + len(found.trials)
    assert parent.data.tags["tuneyard.study"] == found.study.id
    assert parent.data.tags["tuneyard.state"] == found.study.state
    assert parent.data.tags["tuneyard.env.python"]
    for trial in found.trials:
        _check_run(reader, children[f"{found.study.id}/{trial.number}"], parent, trial, found.reports[trial.number])
    best = found.study.best
    assert best is not None
    if _crowns_nobody(found):
        return
    champion = _champion(reader, found)
    assert champion is not None
    assert champion.run_id == children[f"{found.study.id}/{best.trial}"].info.run_id


def _crowns_nobody(found: Finished) -> bool:
    """Among several objectives no trial is the best one."""
    return len(found.study.definition.objectives) > 1


def _champion(reader: MlflowClient, found: Finished) -> ModelVersion | None:
    try:
        return reader.get_model_version_by_alias(found.study.id, "champion")
    except MlflowException:  # there is none yet
        return None


def check_analysis_in_mlflow(service: RunningService, found: Finished) -> None:
    """The best trial's run has its error analysis, with pictures; `check_mlflow` has set how MLflow's client logs in."""
    reader = MlflowClient(f"{service.url}/mlflow")
    assert found.study.best is not None
    name = f"{found.study.id}/{found.study.best.trial}"
    (run,) = (run for run in _settled_runs(reader, found) if run.data.tags.get("tuneyard.trial") == name)

    def files() -> set[str]:
        return {Path(file.path).name for file in reader.list_artifacts(run.info.run_id, "analysis")}

    def is_whole() -> bool:
        there = files()
        return "analysis.json" in there and any(name.endswith(".png") for name in there)

    wait_until(is_whole, _MIRROR_SECONDS, "MLflow did not get the analysis and its pictures")


def _settled_runs(reader: MlflowClient, found: Finished) -> list[Run]:
    """The study's runs, once none is RUNNING any more and the champion has its name: the mirror follows a moment later.

    MLflow may have been killed a moment ago, too.
    """
    experiment: Any = None

    def settled() -> bool:
        with suppress(MlflowException):
            return looks_settled()
        return False

    def looks_settled() -> bool:
        nonlocal experiment
        experiment = next(
            (
                each
                for each in reader.search_experiments()
                if each.tags.get("tuneyard.study") == found.study.id and each.lifecycle_stage == "active"
            ),
            None,
        )
        if experiment is None:
            return False
        runs = reader.search_runs([experiment.experiment_id], max_results=1000)
        has_champion = _crowns_nobody(found) or _champion(reader, found) is not None
        return len(runs) > len(found.trials) and all(run.info.status != "RUNNING" for run in runs) and has_champion

    wait_until(settled, _MIRROR_SECONDS, "MLflow did not come to agree with the store")
    return list(reader.search_runs([experiment.experiment_id], max_results=1000))


def _check_run(reader: MlflowClient, run: Run, parent: Run, trial: TrialView, reports: list[ReportView]) -> None:
    assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert run.info.status == _STATUS[trial.state]
    assert run.data.tags["tuneyard.state"] == trial.state
    assert run.data.tags["tuneyard.reason"] == trial.reason
    assert run.data.tags["tuneyard.attempt"] == str(trial.attempts)
    for name, value in trial.parameters.items():
        assert run.data.params[name] == str(value)
    for metric in reports[0].metrics if reports else []:
        logged = [(point.step, point.value) for point in reader.get_metric_history(run.info.run_id, metric)]
        assert logged == [(report.number, report.metrics[metric]) for report in reports]


def check_checkpoint(client: Client, found: Finished, validation: Path, folder: Path) -> None:
    """The pulled folder holds no pickle and gives the reported metric, loaded with transformers alone."""
    client.pull(found.study.id, folder)
    assert {path.suffix for path in folder.rglob("*") if path.is_file()} <= {".safetensors", ".json", ".txt", ".md"}
    card = json.loads((folder / "tuneyard.json").read_text())
    best = client.best(found.study.id)
    assert (card["study"], card["trial"], card["report"]) == (found.study.id, best.number, best.best_report)
    accuracy, loss = evaluate(folder, validation)
    reported = found.reports[best.number][card["report"] - 1].metrics
    assert abs(accuracy - (reported["validation/accuracy"] or 0)) < 1e-6
    assert abs(loss - (reported["validation/loss"] or 0)) < 1e-6


def evaluate(folder: Path, validation: Path) -> tuple[float, float]:
    """Accuracy and mean cross-entropy of a pulled model on rows with columns `text` and `label`, one row at a time."""
    rows = pd.read_csv(validation)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    hits, loss = 0, 0.0
    with torch.inference_mode():
        for text, label in zip(rows["text"], rows["label"], strict=True):
            logits = model(**tokenizer(text, truncation=True, return_tensors="pt")).logits.double()[0]
            wanted = model.config.label2id[str(label)]
            hits += int(logits.argmax()) == wanted
            loss += float(torch.nn.functional.cross_entropy(logits, torch.tensor(wanted)))
    return hits / len(rows), loss / len(rows)


Span = tuple[datetime, datetime, str]
"""From when to when a worker trained, and which one."""


def check_side_by_side(found: Finished, *, with_other_rungs: bool = False) -> None:
    """In every rung that is wider than one, two workers trained at the same moment: the reports in the store show it.

    Both trained in that rung, or, `with_other_rungs`, at least one of them: an asynchronous rung fills while others run. One that
    began before a second worker was up, as at the start and after a kill, may be over before that is; but not the whole study.
    """
    lives = _lives(found)
    rungs: defaultdict[tuple[int, int], list[Span]] = defaultdict(list)
    for trial in found.trials:
        for place, attempt in enumerate(_whole_attempts(found.attempts[trial.number])):
            reports = [report for report in found.reports[trial.number] if attempt.first < report.number <= attempt.until]
            if reports:
                begun = reports[0].at - timedelta(seconds=reports[0].seconds)
                rungs[trial.bracket, place].append((begun, reports[-1].at, reports[0].worker))
    everything = [span for spans in rungs.values() for span in spans]
    assert any(_overlap(one, other) for one in everything for other in everything), everything
    for (bracket, rung), spans in rungs.items():
        begun, _, worker = min(spans)
        if len(spans) > 1 and any(life[2] != worker and life[0] < begun < life[1] for life in lives):
            others = everything if with_other_rungs else spans
            assert any(_overlap(one, other) for one in spans for other in others), f"bracket {bracket}, rung {rung}: {spans}"


def _lives(found: Finished) -> list[Span]:
    """From each worker's first moment at work to its last."""
    spans: defaultdict[str, list[datetime]] = defaultdict(list)
    for reports in found.reports.values():
        for report in reports:
            spans[report.worker] += [report.at - timedelta(seconds=report.seconds), report.at]
    return [(min(moments), max(moments), worker) for worker, moments in spans.items()]


def _overlap(one: Span, other: Span) -> bool:
    return one[2] != other[2] and one[0] < other[1] and other[0] < one[1]


def _whole_attempts(attempts: Iterable[AttemptView]) -> list[AttemptView]:
    return [attempt for attempt in attempts if attempt.outcome is not AttemptOutcome.LOST]
