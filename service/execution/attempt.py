"""One attempt of one trial on a worker: resume, train to the next rung, leave checkpoints behind. Knows nothing of Ray."""

import json
import math
import os
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from service.checkpoints.local import TrialFolder
from service.domain.definition import Objective
from service.domain.ports import Clock
from service.domain.trial import Report, TrialReason
from service.execution.assignment import Assignment, Progress, report_from_dict, report_to_dict
from service.execution.card import write_card
from trainers import contract
from trainers.configs import CONFIGS, TrainerConfig

_TRACEBACK_CHARACTERS = 4000


class AttemptRun:
    """Runs an assignment report by report; whatever goes wrong comes back as a failed `Progress`, never as an exception."""

    def __init__(
        self,
        assignment: Assignment,
        worker: str,
        clock: Clock,
        make_trainer: Callable[[TrainerConfig, contract.TrialContext], contract.Trainer] = contract.make_trainer,
    ) -> None:
        self._assignment = assignment
        self._worker = worker
        self._clock = clock
        self._make_trainer = make_trainer
        self._folder = TrialFolder(Path(assignment.checkpoints), assignment.study_id, assignment.number)
        self._objective = Objective(metric=assignment.metric, direction=assignment.direction)
        self._known: list[Report] = []
        self._trainer: contract.Trainer | None = None
        self._reports: Iterator[contract.Report] = iter(())

    def advance(self) -> Progress:
        """Train to the next report. What the checkpoint carries is an answer of its own, before anything is trained.

        So report N is recorded before the export of report N + 1 is written, and no export that the store names is dropped.
        """
        try:
            reports = self._start() if self._trainer is None else []
            if not reports:
                reports = [self._next_report()]
            done = len(self._known) >= self._assignment.until
            return self._progress(reports, outcome="done" if done else None)
        except contract.TrainerError as error:
            return self._failure(_known_reason(error.reason), str(error))
        except MemoryError:
            detail = "The worker ran out of memory: lower `batch_size` or `max_length`."
            return self._failure(TrialReason.OUT_OF_MEMORY, detail)
        except Exception:  # the driver must hear of every failure, and the worker stays warm
            return self._failure(TrialReason.TRAINER_ERROR, traceback.format_exc()[-_TRACEBACK_CHARACTERS:])

    def _start(self) -> list[Report]:
        resume = self._folder.resume()
        self._known = [report_from_dict(report) for report in resume.reports] if resume else []
        if len(self._known) >= self._assignment.until:
            return list(self._known)
        assignment = self._assignment
        config = CONFIGS[assignment.configuration["kind"]].model_validate_json(json.dumps(assignment.configuration))
        trainer = self._make_trainer(
            config,
            contract.TrialContext(
                cache=Path(assignment.cache),
                sources={name: Path(path) for name, path in assignment.sources.items()},
                models={name: Path(path) for name, path in assignment.models.items()},
                threads=assignment.threads,
                device="cuda" if assignment.gpus else "cpu",
            ),
        )
        if resume and resume.state:
            trainer.load(resume.state)
        self._trainer, self._reports = trainer, trainer.reports()
        return list(self._known)

    def _next_report(self) -> Report:
        assert self._trainer is not None  # noqa: S101 - `advance` has started it
        try:
            trained = next(self._reports)
        except StopIteration:
            reached = len(self._known)
            raise contract.TrainerError("trainer_error", f"The trainer ended after report {reached}, before its last.") from None
        report = Report(
            number=trained.number,
            epoch=trained.epoch,
            step=trained.step,
            metrics=dict(trained.metrics),
            seconds=trained.seconds,
            attempt=self._assignment.attempt,
            worker=self._worker,
            at=self._clock.now(),
        )
        if not math.isfinite(report.metrics[self._objective.metric]):
            detail = f"`{self._objective.metric}` is {report.metrics[self._objective.metric]}: lower the learning rate."
            raise contract.TrainerError("diverged", detail)
        # The export comes first: a kill in between trains this report again, the other order would lose its weights.
        best = self._best_known()
        if best is None or self._better(report, best):
            self._folder.save_export(
                report.number, lambda folder: self._export(folder, report), before=best.number if best else None
            )
        self._known.append(report)
        at_end = report.number >= self._assignment.last
        self._folder.save_resume([report_to_dict(known) for known in self._known], None if at_end else self._trainer.save)
        return report

    def _export(self, folder: Path, report: Report) -> None:
        assert self._trainer is not None  # noqa: S101 - only called with one
        self._trainer.export(folder)
        write_card(folder, self._assignment, report, self._trainer.facts)

    def _best_known(self) -> Report | None:
        """The best report so far, the earlier of equals: the one whose export the store names until it records a better one."""
        best = None
        for report in self._known:
            if best is None or self._better(report, best):
                best = report
        return best

    def _better(self, report: Report, than: Report) -> bool:
        return self._objective.better(report.metrics[self._objective.metric], than.metrics[self._objective.metric])

    def _progress(self, reports: list[Report], *, outcome: str | None) -> Progress:
        return Progress(
            number=self._assignment.number,
            attempt=self._assignment.attempt,
            worker=self._worker,
            reports=reports,
            outcome="done" if outcome else None,
        )

    def _failure(self, reason: TrialReason, detail: str) -> Progress:
        return Progress(
            number=self._assignment.number,
            attempt=self._assignment.attempt,
            worker=self._worker,
            reports=list(self._known),
            outcome="failed",
            reason=reason.value,
            detail=detail,
        )


def _known_reason(reason: str) -> TrialReason:
    try:
        return TrialReason(reason)
    except ValueError:
        return TrialReason.TRAINER_ERROR


def prepare_environment(threads: int) -> None:
    """What must be set before torch and transformers are first imported in a worker."""
    os.environ.update(
        HF_HUB_OFFLINE="1",  # the driver has fetched everything
        TRANSFORMERS_OFFLINE="1",
        TOKENIZERS_PARALLELISM="false",
        HF_HUB_DISABLE_TELEMETRY="1",
        OMP_NUM_THREADS=str(threads),
        MKL_NUM_THREADS=str(threads),
    )
