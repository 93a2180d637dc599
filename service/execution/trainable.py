"""The Ray side of a worker: a class Trainable that stays warm from attempt to attempt."""

import os
import socket
from pathlib import Path
from typing import Any

import ray
from ray import tune

from service.clock import SystemClock
from service.execution.assignment import Assignment
from service.execution.attempt import AttemptRun, prepare_environment
from service.execution.interruption import Listener

ASSIGNMENT = "assignment"
PROGRESS = "progress"


class AttemptTrainable(tune.Trainable):  # type: ignore[misc]  # ray has no types
    """Each of Ray's trials is one attempt of one of ours; the process, its imports and its caches outlive it."""

    def setup(self, config: dict[str, Any]) -> None:
        assignment = Assignment.from_json(config[ASSIGNMENT])
        prepare_environment(assignment.threads)
        gpus = ",".join(str(gpu) for gpu in ray.get_gpu_ids())
        self._worker = f"{socket.gethostname()}:{os.getpid()}{gpus and f'/gpu{gpus}'}"
        self._run = self._run_of(assignment)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._run = self._run_of(Assignment.from_json(new_config[ASSIGNMENT]))
        return True

    def _run_of(self, assignment: Assignment) -> AttemptRun:
        listener = Listener(Path(assignment.checkpoints), assignment.study_id)
        return AttemptRun(assignment, self._worker, SystemClock(), wish=listener)

    def step(self) -> dict[str, Any]:
        progress = self._run.advance()
        # One string: Tune flattens nested results and writes keys of its own beside them.
        return {PROGRESS: progress.to_json(), "done": progress.outcome is not None}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Tune's checkpoints are not used: `service.checkpoints` has ours."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """See `save_checkpoint`."""
