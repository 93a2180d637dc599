"""Whose run is which in the tracker, and how far each one is."""

from collections.abc import Mapping

from service.domain.ports import MirroredTrial, Store
from service.domain.study import Study
from service.domain.trial import Trial
from service.tracking import records
from service.tracking.tracker import NewRun, Tracker, TrackerRefused


class Runs:
    """A study's runs in the tracker: those the store knows of, those found by their tags, and new ones."""

    def __init__(self, store: Store, tracker: Tracker, study: Study, *, anew: bool, is_whole: bool) -> None:
        self._store = store
        self._tracker = tracker
        self._study = study
        self._found: Mapping[int, str] | None = {} if is_whole else None
        self.known: dict[int, MirroredTrial] = {} if anew else dict(store.mirror.mirrored(study.id))
        self._experiment_id = None if anew else store.mirror.experiment(study.id)

    def is_behind(self, trial: Trial) -> bool:
        """Whether the tracker has not seen this version of the trial."""
        seen = self.known.get(trial.number)
        return seen is None or seen.version < trial.version

    def of(self, number: int, new: NewRun) -> MirroredTrial:
        """The run of a trial, or of the study: the known one, or else one found by its tag, or else a new one."""
        if number not in self.known:
            experiment_id = self._experiment()
            if self._found is None:
                self._found = self._tracker.runs(experiment_id)
            run_id = self._found.get(number) or self._tracker.create_run(experiment_id, new)
            self.remember(MirroredTrial(self._study.id, number, run_id))
        return self.known[number]

    def id_of(self, number: int) -> str:
        """The run that a trial has. Raises TrackerRefused where it could not get one yet."""
        if number not in self.known:
            raise TrackerRefused(f"Trial {number} has no run yet.")
        return self.known[number].run_id

    def remember(self, seen: MirroredTrial) -> None:
        """Write down how far the tracker is."""
        self._store.mirror.set_mirrored([seen])
        self.known[seen.number] = seen

    def _experiment(self) -> str:
        if self._experiment_id is None:
            self._experiment_id = self._tracker.open_experiment(self._study.id, records.experiment_tags(self._study))
            self._store.mirror.set_experiment(self._study.id, self._experiment_id)
        return self._experiment_id
