"""What must be true of studies whose service was killed again and again, by its store, its disk, MLflow and its workers' journal.

Each check answers sentences about what is wrong; a study that nothing happened to has none.
"""

import hashlib
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest

from service.checkpoints.local import TrialFolder
from service.client import Client
from service.domain.errors import CheckpointNotFound
from service.domain.ports import Store
from service.domain.study import Study, StudyReason, StudyState
from service.domain.trial import AttemptOutcome, Trial, TrialState
from service.search import simulate
from tests.chaos.journal import Line, trained
from tests.chaos.replay import differences, told
from tests.integration.agreement import Finished, check_mlflow, check_store, finished
from tests.running import RunningService, wait_until
from tests.walking import paths_below

_SETTLING_SECONDS = 120.0


class Wrong(StrEnum):
    """What a sentence says is wrong."""

    LOST = "lost"
    DUPLICATED = "duplicated"
    STALE = "stale"
    DECIDED = "decided otherwise"


@dataclass(frozen=True)
class Finding:
    """Something that is wrong with a study."""

    wrong: Wrong
    study: str
    sentence: str


@dataclass(frozen=True)
class Evidence:
    """Where everything is looked up once the studies have ended and the service still runs."""

    service: RunningService
    client: Client
    store: Store
    lines: Sequence[Line]


def check(evidence: Evidence, study_id: str, *, alone: bool) -> list[Finding]:
    """All that is wrong with one study; `alone` says that its decisions depend on no order of reports."""
    found = finished(evidence.client, evidence.client.study(study_id))
    checks: Sequence[tuple[Wrong, Callable[[], Iterator[str]]]] = (
        (Wrong.LOST, lambda: _not_at_its_end(evidence, study_id)),
        (Wrong.LOST, lambda: _asserted(lambda: check_store(found))),
        (Wrong.LOST, lambda: not_trained(evidence, study_id)),
        (Wrong.DUPLICATED, lambda: tried_twice(evidence, study_id)),
        (Wrong.DUPLICATED, lambda: trained_twice(evidence, study_id)),
        (Wrong.STALE, lambda: _asserted(lambda: _check_mlflow(evidence.service, found))),
        (Wrong.STALE, lambda: _left_on_disk(evidence, study_id)),
        (Wrong.LOST, lambda: _export_is_broken(evidence, study_id)),
        (Wrong.DECIDED, lambda: iter(differences(evidence.store, study_id))),
        (Wrong.DECIDED, lambda: _not_as_simulated(evidence, study_id) if alone else iter(())),
    )
    return [Finding(wrong, study_id, sentence) for wrong, look in checks for sentence in look()]


def _not_at_its_end(evidence: Evidence, study_id: str) -> Iterator[str]:
    study = evidence.store.studies.get(study_id)
    if study.state is not StudyState.COMPLETED or study.reason not in {StudyReason.BUDGET_SPENT, StudyReason.SPACE_EXHAUSTED}:
        yield f"it is {study.state} ({study.reason}): {study.detail}"
    for number, trial in evidence.store.trials.history(study_id).trials.items():
        if trial.state in {TrialState.FAILED, TrialState.INFEASIBLE, TrialState.CANCELLED}:
            yield f"trial {number} is {trial.state} ({trial.reason}): {trial.detail}"


def _check_mlflow(service: RunningService, found: Finished) -> None:
    with pytest.MonkeyPatch.context() as patch:
        check_mlflow(service, found, patch)


def _asserted(look: Callable[[], None]) -> Iterator[str]:
    try:
        look()
    except AssertionError as error:
        place = traceback.extract_tb(error.__traceback__)[-1]  # outside of pytest an assertion says nothing else
        yield f"{Path(place.filename).name}, line {place.lineno}: {error or place.line}"


def not_trained(evidence: Evidence, study_id: str) -> Iterator[str]:
    """Reports that no worker says it trained, in the attempt and the process that the store names."""
    seen = trained(evidence.lines, study_id)
    for number in evidence.store.trials.history(study_id).trials:
        for report in evidence.store.trials.reports(study_id, number):
            by = {(line.attempt, line.pid) for line in seen[number][report.number]}
            if (report.attempt, int(report.worker.rpartition(":")[2])) not in by:
                said = f"attempt {report.attempt} on {report.worker}"
                yield f"report {report.number} of trial {number} is said to be of {said}, and was trained by {by}"


def tried_twice(evidence: Evidence, study_id: str) -> Iterator[str]:
    space = evidence.store.studies.get(study_id).definition.search_space
    trials = evidence.store.trials.history(study_id).trials.values()
    keys = Counter(space.key(trial.parameters) for trial in trials if trial.repeats is None and trial.parent is None)
    yield from (f"configuration {key} was tried {times} times" for key, times in keys.items() if times > 1)


def trained_twice(evidence: Evidence, study_id: str) -> Iterator[str]:
    """More than one epoch that an attempt trained and another one after it, or any where the first one was not lost.

    And whatever a trial trained on after its end.
    """
    seen, trials = trained(evidence.lines, study_id), evidence.store.trials.history(study_id).trials
    for number, attempts in evidence.store.trials.all_attempts(study_id).items():
        outcomes = {attempt.number: attempt.outcome for attempt in attempts}
        again: Counter[int] = Counter()
        for report, lines in seen[number].items():
            again.update(earlier.attempt for earlier in lines[:-1])
            if trials[number].state in {TrialState.COMPLETED, TrialState.PRUNED} and report > trials[number].reports:
                yield f"trial {number} trained report {report} after its end at report {trials[number].reports}"
        for attempt, times in again.items():
            if times > 1 or outcomes.get(attempt) is not AttemptOutcome.LOST:
                of = f"attempt {attempt} of trial {number}, which is {outcomes.get(attempt)}"
                yield f"{times} epochs of {of}, were trained again"
    for line in evidence.lines:
        ended = trials[line.trial].ended_at if line.study == study_id and line.what == "start" else None
        if ended is not None and datetime.fromtimestamp(line.at, UTC) > ended:
            yield f"attempt {line.attempt} of trial {line.trial} began after the trial's end"


def _left_on_disk(evidence: Evidence, study_id: str) -> Iterator[str]:
    """What stands among the checkpoints although nobody needs it any more, once the controller has had time to tidy up."""
    folder = evidence.service.home / "checkpoints" / study_id
    history = evidence.store.trials.history(study_id)

    def needless() -> list[str]:
        stored = (path for path in paths_below(folder) if path.parent.parent == folder)
        return [str(path.relative_to(folder)) for path in stored if _is_needless(path, history.trials)]

    try:
        wait_until(lambda: not needless(), _SETTLING_SECONDS, "", look_seconds=0.5)
    except AssertionError:
        yield f"still on the disk: {', '.join(needless())}"


def _is_needless(path: Path, trials: Any) -> bool:
    if path.name.startswith("."):
        return True
    trial: Trial = trials[int(path.parent.name)]
    return path.name.startswith("resume-") and trial.state in {TrialState.COMPLETED, TrialState.PRUNED}


def _export_is_broken(evidence: Evidence, study_id: str) -> Iterator[str]:
    """Whether the best trial's export is not what its manifest says."""
    best = evidence.store.trials.best(study_id)
    if best is None or best.best_report is None:
        yield "it has no best trial"
        return
    folder = TrialFolder(evidence.service.home / "checkpoints", study_id, best.number)
    try:
        manifest = folder.manifest(best.best_report)
    except CheckpointNotFound as error:
        yield error.detail
        return
    model = folder.model(best.best_report)
    for file in manifest.files:
        if hashlib.sha256((model / file.path).read_bytes()).hexdigest() != file.sha256:
            yield f"{file.path} of the best export is not what its manifest says"


def _not_as_simulated(evidence: Evidence, study_id: str) -> Iterator[str]:
    """Where the study differs from one that nobody disturbs and that gets the same reports."""
    study, history = evidence.store.studies.get(study_id), evidence.store.trials.history(study_id)
    curves = {tuple(sorted(trial.parameters.items())): history.values[number] for number, trial in history.trials.items()}
    undisturbed = simulate(
        Study(id=study.id, definition=study.definition, created_at=study.created_at),
        lambda parameters, report: curves[tuple(sorted(parameters.items()))][report - 1],
        workers=study.definition.resources.max_concurrent_trials,
    ).history.trials
    for number in sorted(history.trials.keys() | undisturbed.keys()):
        here, there = (each.get(number) for each in (history.trials, undisturbed))
        if here is None or there is None or told(here) != told(there):
            yield f"trial {number} is {here and told(here)}, and undisturbed {there and told(there)}"
