"""The mirror: makes MLflow hold what the store remembers. Outside every decision: training never waits for it.

Each pass looks at the studies whose version is ahead of what was mirrored. Before it makes a run that the store does not know of,
it looks for one with the same tag: a crash between making a run and remembering it leaves one run, not two. It deletes only what
the store says was deleted here: a tracker may also hold the studies of another store, or of this one's later days than a backup.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from service.clock import SystemClock
from service.domain.checkpoint import may_leave
from service.domain.deletion import Forgotten
from service.domain.errors import CheckpointNotFound, LeadershipLost, StudyNotFound
from service.domain.final import FinalResult, export_sizes, final_result
from service.domain.front import front_of
from service.domain.paging import all_trials
from service.domain.ports import CheckpointStore, Clock, MirroredTrial, Store
from service.domain.repairs import Repaired, repaired
from service.domain.study import Study
from service.domain.trial import Trial
from service.tracking import records
from service.tracking.adrift import adrift, said_of
from service.tracking.analyses import Analyses, Draw, no_pictures
from service.tracking.owners import tag_owners
from service.tracking.runs import Runs
from service.tracking.side_by_side import for_each
from service.tracking.study_analyses import Make, StudyAnalyses, no_files
from service.tracking.surroundings import surroundings
from service.tracking.tracker import STUDY, Batch, Tracker, TrackerAway, TrackerForgot, TrackerRefused

_LOG = logging.getLogger("tuneyard.mirror")
_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 60.0
_LOOK_AGAIN = timedelta(minutes=5)


def open_mirror(store: Store, checkpoints: CheckpointStore, tracker: Tracker, draw: Draw, make: Make) -> "Mirror":
    """The mirror into a tracking server, which need not be up yet."""
    environment = surroundings(Path(__file__).parent)
    return Mirror(store, tracker, checkpoints, environment, SystemClock(), draw, make=make)


class Mirror:
    """Follows the store into a tracker, which only one mirror writes to. `environment` is what parent runs say of software."""

    def __init__(  # noqa: PLR0913 - what it follows, what it writes to, and what makes pictures
        self,
        store: Store,
        tracker: Tracker,
        checkpoints: CheckpointStore,
        environment: Mapping[str, str],
        clock: Clock,
        draw: Draw = no_pictures,
        *,
        make: Make = no_files,
    ) -> None:
        self._store = store
        self._tracker = tracker
        self._checkpoints = checkpoints
        self._environment = environment
        self._clock = clock
        self._draw = draw
        self._away = _Pause()
        self._failed: dict[str, _Pause] = {}
        self._anew: set[str] = set()
        """Studies whose experiment or runs the tracker has lost: they are mirrored from the start."""
        self._whole: set[str] = set()
        """Studies all of whose runs are known: what is not known has no run yet, and need not be looked for."""
        self._clean: dict[str, int | None] = {}
        """The marks of studies of which nothing was behind: as long as they stay, nothing is, and their trials are not read."""
        self._reopened: dict[str, dict[int, datetime]] = {}
        """By study the runs that were opened again, and when it had gone on."""
        self._analyses: dict[str, Analyses] = {}
        """What is left to upload of studies that have ended and are otherwise mirrored."""
        self._study_analyses = StudyAnalyses(make)
        self._looked_at: datetime | None = None

    def sync_once(self) -> int:
        """One pass; the number of runs brought up to date. A tracker that is away is asked again later, less and less often."""
        now = self._clock.now()
        if self._away.lasts(now):
            return 0
        done = 0
        try:
            self._look_again(now)
            for study_id in dict.fromkeys([*self._behind(), *self._study_analyses.made()]):
                done += self._unless_it_failed(study_id, self._catch_up)
            for study_id in self._store.mirror.deleted():
                self._unless_it_failed(study_id, self.forget)
        except TrackerAway as error:
            self._away = self._away.longer(now)
            _LOG.warning("%s Trying again in %.0f s.", error.detail, self._away.seconds)
        else:
            self._away = _Pause()
        return done

    def forget(self, study_id: str) -> int:
        """Delete what is left of a deleted study: its checkpoints, which a crash may have spared, and its experiment.

        Answers the number of experiments deleted.
        """
        self._store.deletions.freed(study_id, checkpoints=self._checkpoints.delete(study_id))
        self._drop(study_id)
        self._anew.discard(study_id)
        self._whole.discard(study_id)
        experiment_id, forgotten = self._tracker.experiments().get(study_id), Forgotten()
        if experiment_id is not None:
            forgotten = self._tracker.forget(study_id, experiment_id)
            _LOG.info("study %s is deleted, and now its experiment and %d runs", study_id, forgotten.runs)
        self._store.mirror.set_forgotten(study_id, forgotten, self._clock.now())
        return int(experiment_id is not None)

    def _behind(self) -> Sequence[str]:
        """What is to be mirrored. Only studies in which something happened are looked into: of ended ones there are ever more."""
        marks = self._store.mirror.marks()  # before what they stand for: what happens in between shows in the next ones
        moved = [study_id for study_id, mark in marks.items() if mark is None or self._clean.get(study_id) != mark]
        behind = dict.fromkeys(self._store.mirror.behind(moved))
        self._clean = {study_id: mark for study_id, mark in marks.items() if study_id not in behind}
        return list(behind)

    def _look_again(self, now: datetime) -> None:
        """At the start and now and then: let nothing stay in the tracker that the store says otherwise."""
        if self._looked_at is not None and now - self._looked_at < _LOOK_AGAIN:
            return
        store = self._store
        if self._looked_at is None:
            tag_owners(store, self._tracker)
        try:
            found = adrift(store, self._tracker.running())
        except TrackerRefused as error:
            _LOG.error("what MLflow has as running cannot be compared with the store: %s", error.detail)
            found = {}
        for study_id, (what, entries) in found.items():
            # What a run was sent is not sent again, where that is true.
            sent = {entry.number: entry.reports if what is Repaired.RUNS else 0 for entry in entries}
            store.mirror.set_mirrored([replace(entry, version=-1, reports=sent[entry.number]) for entry in entries])
            self._whole.discard(study_id)
            store.events.add([repaired(study_id, now, what, said_of(what, entries))])
        self._looked_at, self._clean = now, {}

    def _unless_it_failed(self, study_id: str, act: Callable[[str], int]) -> int:
        """Do it, unless it failed a moment ago. Whatever is wrong with one study, the others go on; raises TrackerAway."""
        now = self._clock.now()
        pause = self._failed.get(study_id, _Pause())
        if pause.lasts(now):
            return 0
        longer = pause.longer(now)
        try:
            done = act(study_id)
        except (TrackerAway, LeadershipLost):
            raise
        except TrackerRefused as error:
            _LOG.error("study %s: %s Trying again in %.0f s.", study_id, error.detail, longer.seconds)
        except Exception:
            _LOG.exception("study %s: trying again in %.0f s.", study_id, longer.seconds)
        else:
            self._failed.pop(study_id, None)
            return done
        self._failed[study_id] = longer
        return 0

    def _catch_up(self, study_id: str) -> int:
        is_whole = study_id in self._whole
        self._whole.discard(study_id)  # until this pass is through
        try:
            done = self._sync(study_id, is_whole=is_whole)
        except StudyNotFound:
            self._drop(study_id)
            return 0  # deleted in the meantime
        except TrackerForgot as error:
            self._start_anew(study_id)
            raise TrackerRefused(f"{error.detail} It is mirrored from the start.") from error
        self._anew.discard(study_id)
        self._whole.add(study_id)
        return done

    def _start_anew(self, study_id: str) -> None:
        """Take nothing of it for mirrored any more, also after a restart."""
        self._anew.add(study_id)
        self._drop(study_id)
        self._clean.pop(study_id, None)
        known = self._store.mirror.mirrored(study_id).values()
        self._store.mirror.set_mirrored([replace(entry, version=-1, reports=0) for entry in known])

    def _sync(self, study_id: str, *, is_whole: bool) -> int:
        study = self._store.studies.get(study_id)  # before its trials: they may only be newer
        trials = list(all_trials(self._store.trials, study_id))
        runs = Runs(self._store, self._tracker, study, anew=study_id in self._anew, is_whole=is_whole)
        parent = runs.of(STUDY, records.study_run(study))
        behind = [trial for trial in trials if runs.is_behind(trial)]
        refused: list[str] = []

        def catch_up(trial: Trial) -> None:
            try:
                self._sync_trial(study, trial, runs, runs.of(trial.number, records.trial_run(trial, parent.run_id)))
            except TrackerRefused as error:  # the others go on, and so does the study
                refused.append(error.detail)

        for_each(behind, catch_up)
        done = len(behind) + self._sync_study(study, trials, runs, parent)
        if refused:
            raise TrackerRefused(refused[0] if len(refused) == 1 else f"{refused[0]} So it was with {len(refused)} trials.")
        return done

    def _sync_trial(self, study: Study, trial: Trial, runs: Runs, seen: MirroredTrial) -> None:
        reports = self._store.trials.reports(study.id, trial.number, after=seen.reports)
        decisions = [decision for _, decision in self._store.trials.decisions(study.id, trial.number)]
        self._log(seen.run_id, records.trial_batch(study, trial, reports, decisions, is_new=seen.version < 0))
        if trial.ended_at is None:
            self._reopen(study, trial.number, seen)
        else:
            self._tracker.end_run(seen.run_id, records.status_of(trial.state), trial.ended_at)
        runs.remember(replace(seen, version=trial.version, reports=reports[-1].number if reports else seen.reports))

    def _sync_study(self, study: Study, trials: Sequence[Trial], runs: Runs, seen: MirroredTrial) -> int:
        curve = records.best_curve(study, trials)
        if seen.version >= study.version and seen.reports >= len(curve):
            if study.ended_at is None:
                self._follow(study, trials, seen)
            return 0
        points = curve[seen.reports :]
        if not points and curve and study.ended_at is not None and study.resumed_at is not None:
            # Trials that were revived are counted already: what they have found since is told at the last point there is.
            points = [replace(curve[-1], step=seen.reports)]
        analyses = self._analyses.get(study.id)
        if analyses is None or analyses.version != study.version:
            self._log(seen.run_id, records.study_batch(study, self._environment, points, is_new=seen.version < 0))
            if study.ended_at is None:
                self._reopen(study, STUDY, seen)
            else:
                final = self._final(study, trials)
                if final is not None:
                    self._tracker.log(seen.run_id, records.final_batch(final))
                # First the run, which must not look as if it went on when there is something wrong with the model.
                self._tracker.end_run(seen.run_id, records.status_of(study.state), study.ended_at)
                self._crown(study, runs, None if final is None else final.champion)
                self._mark_front(study, runs)
                analyses = self._analyses[study.id] = Analyses(study, trials)
        is_analysed = analyses is None or self._analyse(analyses, runs)
        is_followed = self._follow(study, trials, seen)
        if study.ended_at is not None:
            if not (is_analysed and is_followed):
                return 0  # it stays behind: the next pass goes on, and so does the next mirror
            self._drop(study.id)
        # The curve is shorter while trials that were revived go on; what was drawn is not drawn again with other values.
        runs.remember(replace(seen, version=study.version, reports=max(seen.reports, len(curve))))
        return 1

    def _log(self, run_id: str, batch: Batch) -> None:
        """What a run gets, also where it has parameters already that its study has changed since: they cannot change."""
        try:
            self._tracker.log(run_id, batch)
        except TrackerRefused:
            if not batch.params:
                raise
            self._tracker.log(run_id, replace(batch, params={}))

    def _reopen(self, study: Study, number: int, seen: MirroredTrial) -> None:
        """Let a run go on that had ended before its study was extended."""
        if study.resumed_at is None:
            return
        reopened = self._reopened.setdefault(study.id, {})
        if reopened.get(number) != study.resumed_at:
            self._tracker.reopen_run(seen.run_id)
            reopened[number] = study.resumed_at

    def _analyse(self, analyses: Analyses, runs: Runs) -> bool:
        return analyses.upload_next(self._checkpoints, self._tracker, self._draw, runs.id_of)

    def _follow(self, study: Study, trials: Sequence[Trial], seen: MirroredTrial) -> bool:
        return self._study_analyses.follow(study, trials, self._tracker, seen.run_id, self._clock.now())

    def _drop(self, study_id: str) -> None:
        """Forget what is remembered of a study while it goes on."""
        self._reopened.pop(study_id, None)
        self._analyses.pop(study_id, None)
        self._study_analyses.forget(study_id)

    def _final(self, study: Study, trials: Sequence[Trial]) -> FinalResult | None:
        if study.definition.final is None:
            return None
        return final_result(study, trials, export_sizes(self._checkpoints, study, trials))

    def _mark_front(self, study: Study, runs: Runs) -> None:
        """Tag the runs of the trials that no other beats, where there are several objectives."""
        if len(study.definition.objectives) > 1:
            for member in front_of(study, self._store.trials.history(study.id)).members:
                self._tracker.log(runs.id_of(member.trial.number), records.pareto_batch())

    def _crown(self, study: Study, runs: Runs, champion: Trial | None) -> None:
        """Register the exported model of the final's champion, or else of the best trial; several objectives have none."""
        if len(study.definition.objectives) > 1:
            return
        best = champion or self._store.trials.best(study.id)
        if best is None or best.best_report is None:
            return
        try:
            manifest = self._checkpoints.manifest(study.id, best.number, best.best_report)
        except CheckpointNotFound as error:
            _LOG.warning("study %s gets no registered model: %s", study.id, error.detail)
            return
        run_id = runs.id_of(best.number)
        if self._tracker.champion(study.id) == (run_id, manifest.report):
            return
        for file in manifest.files:
            if may_leave(file.path):
                with self._checkpoints.open(study.id, best.number, manifest.report, file.path) as content:
                    self._tracker.upload(run_id, f"{records.MODEL_FOLDER}/{file.path}", content, file.bytes)
        self._tracker.register(records.champion_of(study, best, manifest.report, run_id))


@dataclass(frozen=True)
class _Pause:
    """How long something is left alone after failing; each failure in a row doubles it."""

    seconds: float = 0.0
    until: datetime | None = None

    def lasts(self, now: datetime) -> bool:
        return self.until is not None and now < self.until

    def longer(self, now: datetime) -> "_Pause":
        seconds = min(_LONGEST_PAUSE_SECONDS, max(_FIRST_PAUSE_SECONDS, self.seconds * 2))
        return _Pause(seconds, now + timedelta(seconds=seconds))
