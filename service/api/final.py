"""The final of a study: its best configurations trained again under new seeds, and which of them wins."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev

from fastapi import APIRouter

from service.api.dependencies import ApiParts, Parts
from service.api.paths import STUDY, StudyId
from service.api.problems import documented
from service.api.step_schemas import FinalistView, FinalRunView, FinalView, SpreadView
from service.domain import errors
from service.domain.final import ALPHA, METHOD, Finalist, FinalResult, export_sizes, final_result
from service.domain.study import Study
from service.domain.trial import Trial

router = APIRouter(tags=["studies"])

_TEST = "test/"


@router.get(
    STUDY + "/final",
    operation_id="getFinal",
    summary="Get the final",
    response_description="The final so far.",
    responses=documented(errors.StudyNotFound, errors.NoFinal),
)
def get_final(study_id: StudyId, parts: Parts) -> FinalView:
    """The best configurations trained again, each under the same new seeds, and the winner once the study has ended.

    The search's own values do not count: the best of many noisy ones is better than the configuration that gave it. When the
    first by mean is better than the others by more than noise it wins, otherwise the cheapest that cannot be told from it. From
    then on the study's best trial and checkpoint are those of the winner's best run.
    """
    study = parts.store.studies.get(study_id)
    final = study.definition.final
    if final is None:
        raise errors.NoFinal(study_id)
    result = final_of(parts, study)
    return FinalView(
        study_id=study.id, metric=study.definition.objective.metric, direction=study.definition.objective.direction,
        top=final.top, seeds=final.seeds, finished=result.finished, method=METHOD, alpha=ALPHA,
        finalists=[_finalist_view(parts, study, one, result.chances.get(one.trial)) for one in result.finalists],
        winner=None if result.winner is None else result.winner.trial,
        champion=None if result.champion is None else result.champion.number,
        verdict=result.verdict,
    )  # fmt: skip


def final_of(parts: ApiParts, study: Study) -> FinalResult:
    """The result of a study whose definition asks for a final."""
    runs = parts.store.trials.repeats(study.id)
    return final_result(study, runs, export_sizes(parts.checkpoints, study, runs) if study.state.is_end else None)


def best_of(parts: ApiParts, study: Study) -> Trial | None:
    """The best trial: after a final the best run of its winner, else the search's. Raises NoSingleBest."""
    if len(study.definition.objectives) > 1:
        raise errors.NoSingleBest(study.id)
    champion = final_of(parts, study).champion if study.definition.final and study.state.is_end else None
    return champion or parts.store.trials.best(study.id)


def _finalist_view(parts: ApiParts, study: Study, finalist: Finalist, chance: float | None) -> FinalistView:
    tests = {run.number: _tests(parts, study, run) for run in finalist.runs}
    by_metric: defaultdict[str, list[float]] = defaultdict(list)
    for run in finalist.finished:
        for name, value in tests[run.number].items():
            by_metric[name].append(value)
    return FinalistView(
        trial=finalist.trial, parameters=finalist.parameters, failed=finalist.failed, seconds=finalist.seconds,
        gpu_seconds=finalist.gpu_seconds, bytes=finalist.bytes, p_value=chance,
        objective=_spread(finalist.values) if finalist.values else None,
        tests={name: _spread(values) for name, values in sorted(by_metric.items())},
        runs=[
            FinalRunView(
                trial=run.number, seed=run.seed, state=run.state, tests=tests[run.number], seconds=run.seconds,
                gpu_seconds=run.gpu_seconds, value=run.best_value if _is_finite(run.best_value) else None,
            )
            for run in finalist.runs
        ],
    )  # fmt: skip


def _tests(parts: ApiParts, study: Study, run: Trial) -> Mapping[str, float]:
    """What the test rows said of a run: its last report has it."""
    last = parts.store.trials.reports(study.id, run.number, run.reports - 1) if run.reports else []
    said = last[0].metrics.items() if last else ()
    return {name: value for name, value in said if name.startswith(_TEST) and math.isfinite(value)}


def _is_finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _spread(values: Sequence[float]) -> SpreadView:
    return SpreadView(mean=fmean(values), deviation=stdev(values) if len(values) > 1 else None, n=len(values))
