"""A run: a real service, studies of many strategies, kills on a schedule, and what is wrong afterwards."""

import contextlib
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import httpx
import psutil

from service.client import Client
from service.client.errors import ProblemError, ServiceUnreachable
from service.domain.ports import Store
from service.domain.study import StudyState
from service.store.sql import open_store
from tests.chaos.invariants import Evidence, Finding, Wrong, check
from tests.chaos.journal import WATCHING, read_journal, workers_of
from tests.chaos.kills import ENDS_CLUSTER, ENDS_SERVICE, Kind, Victim, dependents, kill, of_kind, targets, victims
from tests.chaos.moments import Scene
from tests.chaos.outcome import IN_A_PAUSE, Hit, Outcome
from tests.chaos.schedule import Shot, schedule
from tests.chaos.studies import ALONE, definitions
from tests.running import RunningService, lives, wait_until

_T = TypeVar("_T")
_CPUS = 7
"""Slots for all of them: what trains nothing needs no processor."""
_OF_A_CLUSTER = frozenset({Kind.DRIVER, Kind.WORKER})
_HALF = 0.5
"""Choices of chance above which a new supervisor only comes when the last one's processes are gone, and a pause is at once."""
OWNER_SECONDS = 30.0
"""How long a process may outlive its owner."""
_LOOK_SECONDS = 0.5
"""Between two looks at processes or studies: the service needs the processor too."""
_RECOVERY_SECONDS = 180.0
_GONE_SECONDS = 10.0
_ANSWER_SECONDS = 180.0


def run(
    root: Path, seed: int, kills: int, at_once: int, *, seconds_to_end: float = 300.0, owner_seconds: float = OWNER_SECONDS
) -> Outcome:
    """Run so many studies at once, kill so many times, let what is left come to its end, and look at everything.

    No process may outlive its owner by more than `owner_seconds`.
    """
    begun = time.monotonic()
    journal = root / "journal.jsonl"
    service = RunningService(
        root, TUNEYARD_CPUS=str(_CPUS), TUNEYARD_SHARE_QUANTUM_SECONDS="5",
        PYTHONPATH=os.pathsep.join(filter(None, [str(WATCHING), os.environ.get("PYTHONPATH")])), CHAOS_JOURNAL=str(journal),
        TUNEYARD_WORKER_ENVIRONMENT='["CHAOS_JOURNAL"]',
    )  # fmt: skip
    chaos = _Chaos(service, journal, Outcome(seed), owner_seconds)
    try:
        service.start()
        chaos.upload()
        for shot in schedule(seed, kills):
            chaos.top_up(at_once)
            chaos.shoot(shot)
            say(f"{len(chaos.outcome.hits)}/{kills} {chaos.outcome.hits[-1]}")
        chaos.await_ends(seconds_to_end)
        chaos.judge()
    finally:
        code = service.stop()
    chaos.note_left_behind(code)
    chaos.outcome.seconds = time.monotonic() - begun
    return chaos.outcome


class _Chaos:
    """A service under kills."""

    def __init__(self, service: RunningService, journal: Path, outcome: Outcome, owner_seconds: float) -> None:
        self.outcome = outcome
        self._owner_seconds = owner_seconds
        self._service = service
        self._scene = Scene(service.home, journal)
        self._definitions = definitions(service)
        self._next = 0
        self._opened: Store | None = None
        self._ended: set[str] = set()
        self._dying: list[tuple[float, psutil.Process, str]] = []
        """Processes that must be gone by then, and whose they were."""

    @property
    def _store(self) -> Store:
        if self._opened is None:
            self._opened = open_store(f"sqlite:///{self._scene.store}")
        return self._opened

    def upload(self) -> None:
        for path in sorted(self._service.rows.glob("*.csv")):
            self._insist(lambda client, path=path: client.upload("intents", path))  # type: ignore[misc]

    def top_up(self, at_once: int) -> None:
        """Begin studies until so many of them run."""
        while len(self._active()) < at_once:
            self._begin()

    def shoot(self, shot: Shot) -> None:
        """One kill; then the service is up again, and something trains."""
        time.sleep(shot.pause_seconds)
        found = self._at_work(shot.kind)
        candidates = of_kind(found, shot.kind)
        victim = candidates[int(shot.choice * len(candidates))]
        posting = threading.Thread(target=self._begin) if shot.kind is Kind.API else None
        if posting is not None:
            posting.start()
        pausing = self._pause(victim.study, at_once=shot.choice > _HALF) if shot.is_in_a_pause else None
        phases = self._kill(shot, victim, found)
        at, doomed = time.monotonic(), [one.process for one in found if one.kind in _OF_A_CLUSTER]
        if posting is not None:
            posting.join()
        if shot.kind in ENDS_SERVICE:
            self._start_again(shot)
        if pausing is not None:
            self._resume(pausing)
            phases.add(IN_A_PAUSE)
        recovered = self._recovered(at, doomed if shot.kind in ENDS_CLUSTER else [])
        self.outcome.hits.append(Hit(shot.kind, frozenset(phases), recovered))
        self._note_outlived()

    def await_ends(self, seconds: float) -> None:
        """Wait until all studies have ended, and those processes too that had lost their owner."""
        wait_until(lambda: not self._active(), seconds, f"studies do not come to their ends: {self._active()}", _LOOK_SECONDS)
        wait_until(lambda: self._note_outlived() or not self._dying, self._owner_seconds + 5, "", _LOOK_SECONDS)

    def judge(self) -> None:
        """Look at every study with the service running."""
        lines = read_journal(self._scene.journal)
        with self._service.client() as client:
            evidence = Evidence(self._service, client, self._store, lines)
            for study_id, name in self.outcome.studies.items():
                say(f"looking at {study_id}")
                self.outcome.findings += check(evidence, study_id, alone=name in ALONE)
            listed = [study.id for study in client.studies()]
        twice = [study_id for study_id in listed if study_id not in self.outcome.studies]
        self.outcome.findings += [Finding(Wrong.DUPLICATED, one, "it was POSTed once and is there twice") for one in twice]
        counted = Counter((line.study, line.trial, line.report) for line in lines if line.what == "trained")
        self.outcome.trained_again = sum(times - 1 for times in counted.values())
        for study_id in self.outcome.studies:
            trials = self._store.trials.history(study_id).trials.values()
            self.outcome.trials += len(trials)
            self.outcome.reports += sum(trial.own_reports for trial in trials)

    def note_left_behind(self, code: int) -> None:
        """What is wrong with the end of the service itself."""
        if code:
            self.outcome.outlived.append(f"`tuneyard serve` left with {code}")
        with contextlib.suppress(AssertionError):  # what was killed is there for a moment more
            wait_until(lambda: not self._service.processes(), _GONE_SECONDS, "", _LOOK_SECONDS)
        self.outcome.outlived += [f"{_described(process)} outlived the service" for process in self._service.processes()]

    def _kill(self, shot: Shot, victim: Victim, found: Sequence[Victim]) -> set[str]:
        owners = workers_of(read_journal(self._scene.journal))
        dying = targets(self._service, shot.kind, victim)
        workers = [one.process.pid for one in found if one.kind is Kind.WORKER]
        if shot.kind is Kind.DRIVER:
            workers = [pid for pid in workers if owners.get(pid) == victim.study]
        elif shot.kind not in ENDS_CLUSTER:
            workers = [pid for pid in workers if pid == victim.process.pid]
        left = dependents(found, shot.kind, victim, owners)
        phases = self._scene.stop_at(shot.moment, dying, workers)
        kill(self._service, shot.kind, dying)
        gone = {process.pid for process in dying}
        until = time.monotonic() + self._owner_seconds
        self._dying += [(until, process, str(shot.kind)) for process in left if process.pid not in gone]
        return phases

    def _start_again(self, shot: Shot) -> None:
        """As an init system does it: at once, or now and then after everything had to be gone."""
        if shot.kind is Kind.SERVE and shot.choice > _HALF:
            self._await_empty()
        self._service.start()

    def _await_empty(self) -> None:
        begun = time.monotonic()
        try:
            wait_until(lambda: not self._service.processes(), self._owner_seconds, "", _LOOK_SECONDS)
        except AssertionError:
            left = [_described(process) for process in self._service.processes()]
            self.outcome.outlived += [f"{one} outlived `tuneyard serve`" for one in left]
        say(f"everything was gone {time.monotonic() - begun:.1f} s after `tuneyard serve`")

    def _note_outlived(self) -> bool:
        """Strike off what is gone, and note what is overdue."""
        now = time.monotonic()
        self._dying = [one for one in self._dying if lives(one[1])]
        for one in [one for one in self._dying if now > one[0]]:
            self.outcome.outlived.append(f"{_described(one[1])} outlived its {one[2]} by more than {self._owner_seconds:.0f} s")
            self._dying.remove(one)
        return False

    def _at_work(self, kind: Kind) -> list[Victim]:
        """The processes of a service at work: something trains, and there is one of the kind."""
        found: list[Victim] = []

        def is_there() -> bool:
            self.top_up(1)  # all may have come to their ends just now
            found[:] = victims(self._service)
            return bool(of_kind(found, kind)) and bool(of_kind(found, Kind.WORKER))

        wait_until(is_there, _RECOVERY_SECONDS, f"nothing to kill of {kind}", _LOOK_SECONDS)
        return found

    def _recovered(self, at: float, doomed: Sequence[psutil.Process]) -> float | None:
        """Seconds until some trial gave another report, once the doomed are gone; None where none was left to give one."""
        wait_until(lambda: not any(map(lives, doomed)), _RECOVERY_SECONDS, "workers or drivers outlive their cluster")
        reports = self._reports()

        def goes_on() -> bool:
            return self._reports() != reports or not self._active()

        wait_until(goes_on, _RECOVERY_SECONDS, "the studies do not go on", _LOOK_SECONDS / 2)
        return None if self._reports() == reports else time.monotonic() - at

    def _begin(self) -> None:
        """POST the next study, again and again with the same key until it is answered."""
        name, document = next(self._definitions)
        self._next += 1
        key = f"study-{self._next}"
        study = self._insist(lambda client: client.apply(document, idempotency_key=key))
        self.outcome.studies[study.id] = name

    def _pause(self, study_id: str | None, *, at_once: bool) -> str | None:
        """Ask a study to pause; None where it has just ended."""
        asked = study_id or next(iter(self._active()), None)
        if asked is None:
            return None
        try:
            self._insist(lambda client: client.pause(asked, now=at_once))
        except ProblemError:
            return None
        return asked

    def _resume(self, study_id: str) -> None:
        """Let it go on once it is paused, or ended before it was."""

        def is_paused() -> bool:
            state = self._store.studies.get(study_id).state
            return state.is_end or state is StudyState.PAUSED

        wait_until(is_paused, _RECOVERY_SECONDS, f"{study_id} does not come to its pause", _LOOK_SECONDS)
        if not self._store.studies.get(study_id).state.is_end:
            self._insist(lambda client: client.resume(study_id))

    def _insist(self, call: Callable[[Client], _T]) -> _T:
        deadline = time.monotonic() + _ANSWER_SECONDS
        while True:
            try:
                with self._service.client() as client:
                    return call(client)
            except (ServiceUnreachable, ProblemError) as error:
                is_refused = isinstance(error, ProblemError) and error.problem.status != httpx.codes.SERVICE_UNAVAILABLE
                if is_refused or time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def _active(self) -> list[str]:
        """Studies that have not ended; those that have are not asked for again."""
        left = [one for one in self.outcome.studies if one not in self._ended]
        self._ended |= {one for one in left if self._store.studies.get(one).state.is_end}
        return [one for one in left if one not in self._ended]

    def _reports(self) -> int:
        return sum(each.reports for each in self._store.trials.totals(list(self.outcome.studies)).values())


def say(text: str) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")


def _described(process: psutil.Process) -> str:
    try:
        return f"{process.pid} {' '.join(process.cmdline())[:120]}"
    except psutil.Error:
        return str(process.pid)
