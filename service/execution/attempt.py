"""One attempt of one trial on a worker: resume, train to the next rung, leave checkpoints behind. Knows nothing of Ray."""

import json
import logging
import math
import os
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from service.checkpoints.space import Free, free_bytes, is_full, refusal
from service.domain.errors import DamagedObject, NoSpace, StorageAway, TuneyardError, UnusableCache
from service.domain.objective import Objective
from service.domain.outcomes import outcome_of, point_of
from service.domain.ports import Clock, LocalSources
from service.domain.trial import Report, TrialReason
from service.execution.assignment import Assignment, Progress, report_from_dict, report_to_dict
from service.execution.card import write_card
from service.execution.interruption import Wish
from service.execution.place import Folder, Place, shared_disk
from trainers import contract
from trainers.configs import CONFIGS, TrainerConfig

_LOG = logging.getLogger("tuneyard.attempt")
_TRACEBACK_CHARACTERS = 4000
_LAST = "last"
"""Stands beside a report in a checkpoint whose trainer gives no more: a trial that stopped early must not train again."""


class _Interrupted(Exception):
    """The trainer has left its loop, as it was asked to."""


class AttemptRun:
    """Runs an assignment report by report; whatever goes wrong comes back as a failed `Progress`, never as an exception."""

    def __init__(  # noqa: PLR0913 - what it stands on, for tests to choose
        self,
        assignment: Assignment,
        worker: str,
        clock: Clock,
        make_trainer: Callable[[TrainerConfig, contract.TrialContext], contract.Trainer] = contract.make_trainer,
        wish: Callable[[], Wish | None] = lambda: None,
        *,
        free: Free = free_bytes,
        place: Callable[[], Place] | None = None,
    ) -> None:
        """`wish` is asked at every step whether the attempt is to leave in the middle of it.

        `place` is where it is at work; a disk that the service shares, when it is left out.
        """
        self._assignment = assignment
        self._worker = worker
        self._clock = clock
        self._make_trainer = make_trainer
        self._wish = wish
        self._asked: Wish | None = None
        self._since = 0.0
        self._free = free
        self._open_place = place or (lambda: shared_disk(assignment, free))
        self._place: Place | None = None
        self._sources = LocalSources({}, {})
        self._objective = Objective(metric=assignment.metric, direction=assignment.direction)
        self._outcomes = [limit for limit in map(outcome_of, assignment.outcomes) if limit is not None]
        self._known: list[Report] = []
        self._memory: contract.GpuMemory | None = None
        self._stopped_early = False
        self._trainer: contract.Trainer | None = None
        self._reports: Iterator[contract.Report] = iter(())

    def advance(self) -> Progress:
        """Train to the next report. What the checkpoint carries is an answer of its own, before anything is trained.

        So report N is recorded before the export of report N + 1 is written, and no export that the store names is dropped.
        """
        try:
            if self._trainer is None and self._interruption() is not None:
                return self._left(0.0)
            reports = self._start() if self._trainer is None else []
            if not reports:
                reports = [self._next_report()]
            return self._progress(reports)
        except _Interrupted:
            return self._interrupted()
        except Exception as error:  # the driver must hear of every failure, and the worker stays warm
            return self._after(error)

    def _after(self, error: Exception) -> Progress:
        """What a failure comes to."""
        match error:
            case NoSpace():
                return self._held_up("no_space", error)
            case StorageAway() | DamagedObject() | UnusableCache():
                return self._held_up("away", error)
            case _ if self._place is not None and is_full(error):  # what is prepared or cached had no room
                return self._held_up("no_space", refusal(self._place.study, error, self._place.cache, self._free))
            case contract.TrainerError():
                return self._failure(_known_reason(error.reason), str(error))
            case MemoryError():
                detail = "The worker ran out of memory: lower `micro_batch_size` or `max_length`, or take a smaller model."
                return self._failure(TrialReason.OUT_OF_MEMORY, detail)
            case _:
                said = "".join(traceback.format_exception(error))
                return self._failure(TrialReason.TRAINER_ERROR, said[-_TRACEBACK_CHARACTERS:])

    def _start(self) -> list[Report]:
        self._place = self._open_place()
        resume = self._folder.resume()
        self._known = [report_from_dict(report) for report in resume.reports] if resume else []
        self._stopped_early = bool(resume and resume.reports and resume.reports[-1].get(_LAST)) and not self._is_whole()
        if self._stopped_early or len(self._known) >= self._assignment.until:
            return list(self._known)
        self._sources = self._here.fetch()
        self._trainer = self._loaded(resume.state if resume else None)
        self._reports = self._trainer.reports()
        return list(self._known)

    @property
    def _folder(self) -> Folder:
        return self._here.folder

    @property
    def _here(self) -> Place:
        assert self._place is not None  # noqa: S101 - `advance` has opened it
        return self._place

    def _loaded(self, state: Path | None) -> contract.Trainer:
        """A trainer that goes on from that state, or from the start where an earlier version wrote it and it cannot be read.

        Such a trial trains again to where it was without a word: the store has those reports.
        """
        trainer = self._new_trainer()
        if state is None:
            return trainer
        try:
            trainer.load(state)
        except (contract.TrainerError, MemoryError):
            raise
        except Exception:
            _LOG.warning("%s cannot be read: the trial is trained again from its start", state, exc_info=True)
        else:
            return trainer
        del trainer  # half loaded; the new one needs its memory
        return self._new_trainer()

    def _new_trainer(self) -> contract.Trainer:
        assignment = self._assignment
        config = CONFIGS[assignment.configuration["kind"]].model_validate_json(json.dumps(assignment.configuration))
        return self._make_trainer(
            config,
            contract.TrialContext(
                cache=self._here.cache,
                sources=self._sources.sources,
                models=self._sources.models,
                threads=assignment.threads,
                device="cuda" if assignment.gpus else "cpu",
                processes=max(1, int(assignment.gpus)),
                goal=contract.Goal(assignment.metric, assignment.direction),
                interruption=self._interruption,
            ),
        )

    def _next_report(self) -> Report:
        assert self._trainer is not None  # noqa: S101 - `advance` has started it
        self._since = time.perf_counter()
        try:
            # A trial that had to start over reports again what is known.
            trained = next(report for report in self._reports if report.number > len(self._known))
        except StopIteration:
            if self._asked is not None:
                raise _Interrupted from None
            reached = len(self._known)
            raise contract.TrainerError("trainer_error", f"The trainer ended after report {reached}, before its last.") from None
        self._memory = trained.gpu_memory or self._memory
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
        at_end = trained.last or report.number >= self._assignment.last
        # The export comes first: a kill in between trains this report again, the other order would lose its weights.
        best = self._best_known()
        if self._counts(report) and (best is None or self._better(report, best)):
            report = self._exported(report, before=best, at_end=at_end)
        elif at_end and best is not None:
            report = self._tested(report, lambda: self._folder.model(best.number))
        self._known.append(report)
        self._stopped_early = trained.last and not self._is_whole()
        try:
            self._folder.save_resume(self._carried(is_last=trained.last), None if at_end else self._trainer.save)
        except Exception:
            self._known.pop()  # the store must not be ahead of what the trial goes on from
            raise
        return report

    def _interruption(self) -> contract.Interruption | None:
        """What the trainer asks at every step."""
        self._asked = self._wish() or self._asked  # a trainer of several processes hears of it later than this
        return None if self._asked is None else contract.Interruption.PAUSE

    def _interrupted(self) -> Progress:
        """Save where the trial stands, between two reports, unless nobody will want that any more."""
        assert self._trainer is not None  # noqa: S101 - it was in its loop
        seconds = time.perf_counter() - self._since
        try:
            if self._asked is Wish.PAUSE:
                self._folder.save_resume(self._carried(is_last=False), self._trainer.save, midway=True)
        except Exception:
            _LOG.exception("trial %s goes on from its last report: where it stands cannot be saved", self._assignment.number)
        return self._left(seconds)

    def _exported(self, report: Report, before: Report | None, *, at_end: bool) -> Report:
        """Export the best report so far; at the trial's end it is tested, and the card and the report say how well it did."""
        assert self._trainer is not None  # noqa: S101 - only called with one
        trainer, said = self._trainer, [report]

        def write(folder: Path) -> None:
            trainer.export(folder)
            if at_end:
                said.append(self._tested(report, lambda: folder))
            write_card(folder, self._assignment, said[-1], trainer.facts)

        self._folder.save_export(report.number, write, before=before.number if before else None, analysis=trainer.analysis())
        return said[-1]

    def _tested(self, report: Report, exported: Callable[[], Path]) -> Report:
        """The report with what the test rows say of that export. A test that fails costs a trial nothing that it has learned."""
        assert self._trainer is not None  # noqa: S101 - only called with one
        try:
            return replace(report, metrics={**report.metrics, **self._trainer.test(exported())})
        except StorageAway:
            raise
        except Exception:
            _LOG.exception("trial %s of study %s could not be tested", self._assignment.number, self._assignment.study_id)
            return report

    def _carried(self, *, is_last: bool) -> list[dict[str, Any]]:
        """All reports as the checkpoint carries them, the last one marked where the trainer gives no more."""
        known = [report_to_dict(report) for report in self._known]
        return [*known[:-1], {**known[-1], _LAST: True}] if is_last else known

    def _is_whole(self) -> bool:
        return len(self._known) >= self._assignment.last

    def _best_known(self) -> Report | None:
        """The best report so far, the earlier of equals: the one whose export the store names until it records a better one."""
        best = None
        for report in filter(self._counts, self._known):
            if best is None or self._better(report, best):
                best = report
        return best

    def _counts(self, report: Report) -> bool:
        """Whether it may be the best: it keeps all outcomes, and is not the parent's, which exported it."""
        return report.number > self._assignment.inherited and point_of((), self._outcomes, report.metrics).counts

    def _better(self, report: Report, than: Report) -> bool:
        return self._objective.better(report.metrics[self._objective.metric], than.metrics[self._objective.metric])

    def _progress(self, reports: list[Report]) -> Progress:
        outcome: Literal["done", "stopped_early"] | None = None
        if self._stopped_early:
            outcome = "stopped_early"
        elif len(self._known) >= self._assignment.until:
            outcome = "done"
        return Progress(
            number=self._assignment.number,
            attempt=self._assignment.attempt,
            worker=self._worker,
            reports=reports,
            outcome=outcome,
            memory=self._memory,
        )

    def _left(self, seconds: float) -> Progress:
        return Progress(
            number=self._assignment.number,
            attempt=self._assignment.attempt,
            worker=self._worker,
            outcome="interrupted",
            seconds=seconds,
        )

    def _held_up(self, outcome: Literal["no_space", "away"], error: TuneyardError) -> Progress:
        """What is this node's fault and not the trial's."""
        detail = f"On node {self._worker.partition(':')[0]}: {error.detail}"
        return replace(self._failure(TrialReason.TRAINER_ERROR, detail), outcome=outcome, reason=None)

    def _failure(self, reason: TrialReason, detail: str) -> Progress:
        return Progress(
            number=self._assignment.number,
            attempt=self._assignment.attempt,
            worker=self._worker,
            reports=list(self._known),
            outcome="failed",
            reason=reason.value,
            detail=detail,
            memory=self._memory,
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
