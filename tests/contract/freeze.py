"""Writes down what this version of the program puts into a database: `python -m tests.contract.freeze`.

To be run once for each new revision, by the program that has it. What earlier programs wrote is never written again.
"""

import json
import sqlite3
import sys
import tempfile
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from service.domain.access import AccessToken, AuditEntry, Caller, Project, Quotas, Role, Source
from service.domain.decision import Decision
from service.domain.history import PriorTrial
from service.domain.ports import Change, IdempotencyKey, MirroredTrial, Store
from service.domain.share import Share
from service.domain.stored import Footprint
from service.domain.study import StudyReason
from service.domain.trial import Attempt, AttemptOutcome, TrialReason
from service.domain.waiting import Waiting, WaitingCause
from service.store.sql import open_store
from service.store.versions import upgrade, versions_of
from tests.builders import NOW, a_forecast, a_report, a_study, a_trial

FROZEN = Path(__file__).parent / "frozen"
STUDY, EMPTIED, DELETED = "intents-abc123", "emptied-abc123", "deleted-abc123"
HYPERBAND: dict[str, Any] = {
    "strategy": {"kind": "hyperband", "reduction_factor": 3, "min_epochs": 1},
    "budget": {"trials": 9, "wall_clock": "2h", "target": 0.94},
    "resources": {"max_concurrent_trials": 2},
}
DRIVER = "driver-4711-99"
ADA = Caller("ada", Role.EDITOR, Source.OIDC, "vision")
"""Whose the login link and the session are, from revision 0007 on."""


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "tuneyard.db"
        upgrade(f"sqlite:///{file}")
        fill(open_store(f"sqlite:///{file}"))
        target = FROZEN / f"{versions_of(f'sqlite:///{file}').newest}.json"
        if target.exists():
            sys.stderr.write(f"{target} is there already: it is what the program of that revision wrote.\n")
            return 1
        target.write_text(_rows(file))
    return 0


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def fill(store: Store) -> None:
    """Two studies and one that was deleted, with something in every table."""
    study = store.studies.add(a_study(**HYPERBAND), IdempotencyKey("post-1", "ab" * 32))
    prior = PriorTrial("before-abc123", 3, {"learning_rate": 4e-3}, (0.5, 0.75), is_whole=True)
    emptied = store.studies.add(a_study(EMPTIED, created_at=after(1)), None, [prior])
    deleted = store.studies.add(a_study(DELETED, created_at=after(2)))
    store.studies.save(study.running(after(3)))
    assert store.leases.acquire(STUDY, DRIVER, NOW, timedelta(days=10_000))
    _try(store, 0, [0.5, 0.75, 0.1 + 0.2], TrialReason.EPOCHS_DONE)
    _try(store, 1, [0.25], TrialReason.OUT_OF_MEMORY)
    _try(store, 2, [0.625], until=1, bracket=1)
    _try(store, 3, [])
    store.mirror.set_experiment(STUDY, "17")
    store.mirror.set_mirrored(
        [
            MirroredTrial(STUDY, -1, "run-study", 1, 2),
            MirroredTrial(STUDY, 0, "run-0", 4, 3),
            MirroredTrial(STUDY, 2, "run-2", 1, 0),
        ]
    )
    store.access.add_login_code("cd" * 32, after(10**9), ADA)
    store.access.add_session("ef" * 32, after(10**9), ADA)
    ending = store.studies.save(emptied.stopping(StudyReason.CANCEL_REQUESTED, "nobody wants it"))
    store.studies.save(ending.ended(after(70)))
    assert store.leases.acquire(DELETED, DRIVER, NOW, timedelta(days=10_000))
    store.trials.record(DRIVER, [Change(a_trial(0, DELETED, created_at=after(4), gpu_seconds=7.5))])
    ending = store.studies.save(deleted.stopping(StudyReason.CANCEL_REQUESTED))
    store.studies.save(ending.ended(after(71)))
    store.studies.delete(DELETED)
    _fill_later_tables(store)


def _fill_later_tables(store: Store) -> None:
    forked = a_trial(4, created_at=after(80), parameters={"learning_rate": 2e-3}, parent=0, parent_report=2, seed=5)
    store.trials.record(DRIVER, [Change(forked, decision=Decision("proposed", "random"))])
    store.trials.request(STUDY, {"learning_rate": 3e-3}, after(81), IdempotencyKey("ask-1", "12" * 32))
    waiting = Waiting(WaitingCause.QUEUE, "others run", after(82))
    store.shares.grant({STUDY: Share(2, None, 0.25, waiting, 1)})
    store.shares.want(STUDY, 3)
    store.footprints.set(STUDY, Footprint(12345678901, after(83), "above its budget", (1,)))
    store.trials.ask_to_stop(STUDY, 3, after(84), "ada")
    store.forecasts.add(STUDY, a_forecast())
    token = AccessToken("k3v9x2", "ada", Role.EDITOR, "vision", after(86), "grace", after(10**9), None, after(87))
    store.access.add_token(token, "34" * 32)
    store.projects.add(Project("vision", after(88), Quotas(3, 2.5, 10.0)))
    store.audit.add(
        AuditEntry(after(89), "ada", Role.EDITOR, "vision", token.id, "pauseStudy", "/v1/studies/x:pause", 202, "::1")
    )
    assert store.leadership.acquire("controller-host-a1b2c3-1-1", after(85), timedelta(seconds=10))


def _try(store: Store, number: int, values: list[float], reason: TrialReason | None = None, **changes: Any) -> None:
    objective = store.studies.get(STUDY).definition.objective
    trial = a_trial(number, created_at=after(4), **changes)
    written = [Change(trial)]
    trial = trial.started(after(5))
    written.append(Change(trial, attempt=Attempt(1, 0, trial.until, after(5))))
    for place, value in enumerate(values, 1):
        report = a_report(place, value)
        trial = trial.reported(report, objective, 0.5)
        written.append(Change(trial, report=report))
    if reason is not None:
        outcome = AttemptOutcome.FAILED if reason is TrialReason.OUT_OF_MEMORY else AttemptOutcome.DONE
        trial = trial.ended(reason, after(60), "as it was told: \u00fc\n")
        written.append(Change(trial, attempt=Attempt(1, 0, trial.until, after(5), after(60), outcome, "localhost:1")))
    store.trials.record(DRIVER, written)


def _rows(file: Path) -> str:
    """Every row but Alembic's own, a line each."""
    with closing(sqlite3.connect(file)) as connection:
        connection.row_factory = sqlite3.Row
        named = connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name"
        )
        rows = {name: [dict(row) for row in connection.execute(f"SELECT * FROM {name}")] for (name,) in named}
    tables = [
        f'"{name}": [\n' + ",\n".join("  " + json.dumps(row, ensure_ascii=False) for row in rows[name]) + "\n]"
        for name in rows
        if name != "alembic_version" and rows[name]
    ]
    return "{\n" + ",\n".join(tables) + "\n}\n"


if __name__ == "__main__":
    sys.exit(main())
