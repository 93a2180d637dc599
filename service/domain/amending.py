"""What of a definition may change once its study has begun: its budget, its priority and how many of its trials run at once."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from service.domain.automatic import settled
from service.domain.budget import Budget, Cost, Spending, time_is_up
from service.domain.definition import StudyDefinition, violations
from service.domain.errors import InvalidDefinition, Violation
from service.domain.merge_patch import merged
from service.domain.pointers import pointer, violations_of
from service.domain.study import Study, StudyReason

_CHANGEABLE: Mapping[str, frozenset[str] | None] = {
    "budget": None,
    "priority": None,
    "resources": frozenset({"max_concurrent_trials"}),
}
"""Keys of a definition that a patch may name, and of those of them that are not changeable as a whole, the keys inside."""

_FIXED = "cannot change once the study has begun: fork it with another one"
_MAY_BE_TOO_LITTLE = frozenset({"/budget/trials", "/budget/epochs"})
"""Limits that must pay for a first trial when a study is POSTed. One that runs ends as soon as a lower limit is spent."""


def amended(definition: StudyDefinition, patch: Any) -> StudyDefinition:
    """The definition after a merge patch (RFC 7396) of what may change; raises InvalidDefinition with pointers into the patch.

    What `auto` chose stays chosen, as a search cannot change its mind in the middle.
    """
    refused = list(_not_changeable(patch))
    if refused:
        raise InvalidDefinition(refused)
    document = merged(definition.model_dump(mode="json"), patch)
    try:
        wanted = StudyDefinition.model_validate_json(json.dumps(document))
    except ValidationError as error:
        raise InvalidDefinition(violations_of(StudyDefinition, document, {}, error.errors(include_url=False))) from error
    changes: dict[str, Any] = {name: getattr(wanted, name) for name in patch}
    changes = {name: value for name, value in changes.items() if value != getattr(definition, name)}
    if not changes:
        return definition
    if changes.keys() & {"budget", "resources"}:
        changes["strategy"] = settled(definition)
    changed = definition.model_copy(update=changes)
    found = [one for one in violations(changed) if one.pointer not in _MAY_BE_TOO_LITTLE]
    if found:
        raise InvalidDefinition(found)
    return changed


def larger(study: Study, budget: Mapping[str, Any]) -> StudyDefinition:
    """The study's definition with a budget that is larger by this merge patch; raises InvalidDefinition, as `amended` does.

    Limits are raised or removed, and a target may be any other. What ended the study must be among what changes.
    """
    old = study.definition
    changed = amended(old, {"budget": dict(budget)})
    found = [*_smaller(old.budget, changed.budget), *_ends_it_again(study, changed.budget)]
    if found:
        raise InvalidDefinition(found)
    return changed


def spent_already(definition: StudyDefinition, spent: Spending, best: float | None) -> list[Violation]:
    """Why a study with this definition would end as soon as it goes on: its time is up, or the target reached."""
    budget, found = definition.budget, []
    for name in ("wall_clock", "gpu_hours", "cost"):
        limit = getattr(budget, name)
        if limit is not None and time_is_up(Budget(**{name: limit}), spent):
            found.append(
                Violation(f"/budget/{name}", "is spent already, so that nothing would go on: raise it, or set it to null")
            )
    if budget.target is not None and best is not None and definition.objective.reaches(best, budget.target):
        detail = f"is reached already, by {best:g}: set a better one, or null to search on without one"
        found.append(Violation("/budget/target", detail))
    return found


def _not_changeable(patch: Any) -> Iterator[Violation]:
    if not isinstance(patch, dict):
        yield Violation("", "is a patch: it has to be an object, such as {budget: {trials: 50}}")
        return
    for name, change in patch.items():
        if name not in _CHANGEABLE:
            is_known = name in StudyDefinition.model_fields
            yield Violation(pointer([name]), _FIXED if is_known else f"is no key of a study: {', '.join(_CHANGEABLE)} may change")
            continue
        inside = _CHANGEABLE[name]
        if inside is None:
            continue
        if not isinstance(change, dict):
            yield Violation(pointer([name]), f"name what of it changes: {', '.join(sorted(inside))}")
            continue
        for key in [key for key in change if key not in inside]:
            yield Violation(pointer([name, key]), _FIXED)


def _smaller(old: Budget, new: Budget) -> Iterator[Violation]:
    for name in Budget.model_fields:
        before, after = getattr(old, name), getattr(new, name)
        if name == "target" or after is None or after == before:
            continue
        if before is None:
            detail = "was not limited, and an extension limits nothing: leave it out, or change it with `PATCH /v1/studies/ID`"
            yield Violation(f"/budget/{name}", detail)
        elif _amount(after) < _amount(before):
            detail = (
                "is less than it was, and an extension only adds: raise it, or lower it with `PATCH /v1/studies/ID` while the "
                "study runs"
            )
            yield Violation(f"/budget/{name}", detail)


def _amount(limit: float | Cost) -> float:
    return limit.limit / limit.per_gpu_hour if isinstance(limit, Cost) else limit


def _ends_it_again(study: Study, budget: Budget) -> Iterator[Violation]:
    """What a study that ended by itself has to change, as it would end again otherwise."""
    if not study.state.is_end or budget == study.definition.budget:
        return
    old = study.definition.budget
    if study.reason is StudyReason.TARGET_REACHED and budget.target == old.target:
        yield Violation("/budget/target", "ended the study: set a better one, or null to search on without one")
    if study.reason is StudyReason.NO_IMPROVEMENT and budget.no_improvement == old.no_improvement:
        yield Violation("/budget/no_improvement", "ended the study: raise it, or set it to null")
    if study.reason is StudyReason.SPACE_EXHAUSTED:
        yield Violation("/budget", "was not what ended the study, which has tried all there is: fork it with a wider space")
