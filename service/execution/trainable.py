"""The Ray side of a worker: a class Trainable that stays warm from attempt to attempt."""

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray import tune

from service.clock import SystemClock
from service.execution.assignment import Assignment
from service.execution.attempt import AttemptRun, prepare_environment
from service.execution.interruption import Listener, Wish
from service.execution.place import Place

if TYPE_CHECKING:
    from service.execution.afar import Afar

ASSIGNMENT = "assignment"
PROGRESS = "progress"


class AttemptTrainable(tune.Trainable):  # type: ignore[misc]  # ray has no types
    """Each of Ray's trials is one attempt of one of ours; the process, its imports and its caches outlive it."""

    def setup(self, config: dict[str, Any]) -> None:
        assignment = Assignment.from_json(config[ASSIGNMENT])
        prepare_environment(assignment.threads)
        gpus = ",".join(str(gpu) for gpu in ray.get_gpu_ids())
        self._worker = f"{socket.gethostname()}:{os.getpid()}{gpus and f'/gpu{gpus}'}"
        self._afar: Afar | None = None
        self._run = self._run_of(assignment)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._run = self._run_of(Assignment.from_json(new_config[ASSIGNMENT]))
        return True

    def _run_of(self, assignment: Assignment) -> AttemptRun:
        if assignment.storage is None:
            listener = Listener(Path(assignment.checkpoints), assignment.study_id)
            return AttemptRun(assignment, self._worker, SystemClock(), wish=listener)
        return AttemptRun(assignment, self._worker, SystemClock(), wish=self._wish, place=lambda: self._place(assignment))

    def _place(self, assignment: Assignment) -> Place:
        """Where an attempt is at work that shares no disk with the service."""
        if self._afar is None:
            from service.execution.afar import open_afar  # noqa: PLC0415 - who shares a disk needs none of it

            self._afar = open_afar(str(assignment.storage), assignment.study_id)
        return self._afar.place(assignment)

    def _wish(self) -> Wish | None:
        return None if self._afar is None else self._afar.listener()

    def step(self) -> dict[str, Any]:
        progress = self._run.advance()
        # One string: Tune flattens nested results and writes keys of its own beside them.
        return {PROGRESS: progress.to_json(), "done": progress.outcome is not None}

    def cleanup(self) -> None:
        if self._afar is not None:
            self._afar.listener.close()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Tune's checkpoints are not used: `service.checkpoints` has ours."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """See `save_checkpoint`."""
