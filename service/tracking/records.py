"""What MLflow should hold of a study, as a pure function of what the store remembers."""

import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, assert_never

import yaml
from pydantic import ValidationError

from service.domain.access import PROJECT_TAG
from service.domain.automatic import Plan
from service.domain.decision import Decision, DecisionKind
from service.domain.final import FinalResult
from service.domain.study import Study, StudyState
from service.domain.trial import Report, Trial, TrialState
from service.tracking.tracker import REPORT_TAG, STUDY_TAG, TRIAL_TAG, Batch, Champion, Metric, NewRun, RunStatus

_MAX_PARAM = 500
_MAX_TAG = 5000
MODEL_FOLDER = "model"


def status_of(state: StudyState | TrialState) -> RunStatus:
    """MLflow's word for a state."""
    match state:
        case StudyState.QUEUED | StudyState.RUNNING | StudyState.PAUSING | StudyState.PAUSED | StudyState.STOPPING:
            return RunStatus.RUNNING
        case TrialState.QUEUED | TrialState.RUNNING | TrialState.PAUSED:
            return RunStatus.RUNNING
        case StudyState.COMPLETED | TrialState.COMPLETED | TrialState.PRUNED:
            return RunStatus.FINISHED
        case StudyState.STOPPED | StudyState.CANCELLED | TrialState.STOPPED | TrialState.CANCELLED:
            return RunStatus.KILLED
        case StudyState.FAILED | TrialState.FAILED | TrialState.INFEASIBLE:
            return RunStatus.FAILED
        case _:
            assert_never(state)


def experiment_tags(study: Study) -> Mapping[str, str]:
    """Tags of a study's experiment. The kind opens it as runs with curves, and keeps the UI from guessing and storing one."""
    return {
        STUDY_TAG: study.id,
        PROJECT_TAG: study.project,
        "tuneyard.name": study.definition.name,
        "mlflow.experimentKind": "custom_model_development",
        "mlflow.note.content": _cut(_as_note(study), _MAX_TAG),
    }


def study_run(study: Study) -> NewRun:
    """The parent run of a study."""
    return NewRun(study.definition.name, study.started_at or study.created_at, {STUDY_TAG: study.id, **_SOURCE})


def trial_run(trial: Trial, parent_run_id: str) -> NewRun:
    """The run of a trial, a child of its study's."""
    tags = {
        STUDY_TAG: trial.study_id,
        TRIAL_TAG: f"{trial.study_id}/{trial.number}",
        "mlflow.parentRunId": parent_run_id,
        **_SOURCE,
    }
    return NewRun(f"trial-{trial.number:04d}", trial.started_at or trial.created_at, tags)


def study_batch(study: Study, environment: Mapping[str, str], metrics: Sequence[Metric], *, is_new: bool) -> Batch:
    """What a study's run gets: state always, the configuration and environment that all its trials share when it is new."""
    tags = {"tuneyard.state": study.state.value, **_cleared(study)}
    if study.reason is not None:
        tags["tuneyard.reason"] = study.reason.value
    if study.detail:
        tags["tuneyard.detail"] = study.detail
    tags["mlflow.note.content"] = _as_note(study)  # it has the budget as it is now, which a parameter cannot tell
    if not is_new:
        return Batch(tags=_tags(tags), metrics=metrics)
    described = {f"tuneyard.env.{name}": value for name, value in environment.items()}
    described["tuneyard.env.sha256"] = hashlib.sha256(json.dumps(dict(environment), sort_keys=True).encode()).hexdigest()[:16]
    if "git_revision" in environment:
        described["mlflow.source.git.commit"] = environment["git_revision"]
    tags |= {
        "tuneyard.plan": _planned(study.definition.plan),
        "tuneyard.device": "gpu" if study.definition.resources.gpus else "cpu",
        **described,
    }
    return Batch(params=_study_params(study), tags=_tags(tags), metrics=metrics)


def final_batch(final: FinalResult) -> Batch:
    """What the run of a study that has ended says of its final."""
    winner = {} if final.winner is None else {"tuneyard.winner": str(final.winner.trial)}
    return Batch(tags=_tags({**winner, "tuneyard.verdict": final.verdict}))


def pareto_batch() -> Batch:
    """What the runs on the front of a study with several objectives get once it has ended."""
    return Batch(tags={"tuneyard.pareto": "true"})


def trial_batch(
    study: Study, trial: Trial, reports: Sequence[Report], decisions: Sequence[Decision] = (), *, is_new: bool
) -> Batch:
    """What a trial's run gets: its state, why it is there and these reports, and its whole configuration when it is new."""
    tags = {
        "tuneyard.state": trial.state.value,
        "tuneyard.attempt": str(trial.attempts),
        "tuneyard.rung": str(trial.rung),
        "tuneyard.bracket": str(trial.bracket),
        **_cleared(study),
    }
    if trial.repeats is not None:
        tags["tuneyard.repeats"] = str(trial.repeats)
    if trial.parent is not None:
        tags["tuneyard.parent"] = f"{trial.parent} at report {trial.parent_report}"
    if trial.reason is not None:
        tags["tuneyard.reason"] = trial.reason.value
    if trial.detail:
        tags |= {"tuneyard.detail": trial.detail, "mlflow.note.content": f"```\n{_cut(trial.detail, _MAX_TAG - 10)}\n```"}
    tags |= _reasons(decisions)
    configuration = _configuration(study, trial) if is_new else {}
    metrics = list(itertools.chain.from_iterable(map(_metrics, reports)))
    return Batch(params=_params(configuration), tags=_tags(tags), metrics=metrics)


def best_curve(study: Study, trials: Iterable[Trial]) -> Sequence[Metric]:
    """The best value after each trial that ended with one: step n is the n-th such trial, in the order in which they ended."""
    objective = study.definition.objective
    ended: list[tuple[datetime, int, float]] = sorted(
        (trial.ended_at, trial.number, trial.best_value)
        for trial in trials
        if trial.ended_at is not None and trial.best_value is not None and trial.repeats is None
    )
    points: list[Metric] = []
    for step, (at, _, value) in enumerate(ended, start=1):
        is_better = not points or objective.better(value, points[-1].value)
        points.append(Metric(f"best/{objective.metric}", value if is_better else points[-1].value, step, at))
    return points


def champion_of(study: Study, best: Trial, report: int, run_id: str) -> Champion:
    """The registered model of a study that has ended: the best trial's, of its best report."""
    objective = study.definition.objective
    described = f"Best trial of study {study.id}: {objective.metric} {best.best_value:.6g} at report {report}."
    tags = {
        STUDY_TAG: study.id,
        PROJECT_TAG: study.project,
        TRIAL_TAG: f"{study.id}/{best.number}",
        "tuneyard.objective": objective.metric,
        "tuneyard.value": repr(best.best_value),
        REPORT_TAG: str(report),
    }
    return Champion(study.id, run_id, report, MODEL_FOLDER, described, tags)


def _cleared(study: Study) -> Mapping[str, str]:
    """Tags of an end that may have been undone: they are filled again where there is still something to say."""
    return {} if study.resumed_at is None else {"tuneyard.reason": "", "tuneyard.detail": ""}


_SOURCE = {"mlflow.source.name": "tuneyard", "mlflow.source.type": "LOCAL"}


def _reasons(decisions: Sequence[Decision]) -> Mapping[str, str]:
    """Tags that say why a trial was proposed, promoted and cut."""
    tags: dict[str, str] = {}
    for decision in decisions:
        tag = _WHY[decision.kind]
        tags[tag] = f"{tags[tag]} {decision.sentence}" if tag in tags else decision.sentence
        if decision.kind == "proposed":
            tags["tuneyard.proposed_by"] = decision.by
    return tags


_WHY: Mapping[DecisionKind, str] = {
    "proposed": "tuneyard.why_proposed",
    "promoted": "tuneyard.why_promoted",
    "cut": "tuneyard.why_ended",
}


def _metrics(report: Report) -> list[Metric]:
    values = {**report.metrics, "epoch": report.epoch}
    return [Metric(key, value, report.number, report.at) for key, value in values.items()]


def _configuration(study: Study, trial: Trial) -> Mapping[str, Any]:
    try:
        return study.definition.configured(trial.parameters, trial.seed).model_dump(mode="json")
    except ValidationError:  # a trial that failed for that
        return trial.parameters


def _study_params(study: Study) -> Mapping[str, str]:
    definition = study.definition
    fixed = {name: value for name, value in _flat(definition.trainer.model_dump(mode="json")) if name not in definition.space}
    searched = {
        f"space.{name}": json.dumps(one.model_dump(mode="json", exclude_none=True)) for name, one in definition.space.items()
    }
    rest = {
        name: getattr(definition, name).model_dump(mode="json", exclude_none=True)
        for name in ("objective", "strategy", "budget", "resources", "checkpoints", "requirements")
    }
    if len(definition.objectives) > 1:
        rest["objectives"] = {str(place): one.model_dump(mode="json") for place, one in enumerate(definition.objectives)}
    if definition.final is not None:
        rest["final"] = definition.final.model_dump(mode="json")
    for name in ("constraints", "outcomes", "warm_start"):
        rest[name] = {str(place): text for place, text in enumerate(getattr(definition, name))}
    return _params({**fixed, **searched, **rest, "search_seed": definition.seed})


def _planned(plan: Plan) -> str:
    return plan.reason or f"`{plan.strategy.kind}`, as the definition says."


def _params(tree: Mapping[str, Any]) -> Mapping[str, str]:
    return {name: _cut(_text(value), _MAX_PARAM) for name, value in _flat(tree)}


def _flat(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Leaves of a nested mapping, their keys joined with dots."""
    leaves: list[tuple[str, Any]] = []
    for key, value in tree.items():
        leaves += _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [(f"{prefix}{key}", value)]
    return leaves


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _tags(tags: Mapping[str, str]) -> Mapping[str, str]:
    return {key: _cut(value, _MAX_TAG) for key, value in tags.items()}


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _as_note(study: Study) -> str:
    text = yaml.safe_dump(study.definition.model_dump(mode="json", exclude_none=True), sort_keys=False, allow_unicode=True)
    return f"```yaml\n{text[: _MAX_TAG - 20]}```"
