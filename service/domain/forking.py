"""The definition of a fork: an old study's, changed key by key, for a new study that knows the old one's trials."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from search_spaces import Parameter, identity
from service.domain.merge_patch import merged
from service.domain.searched import extremes
from service.domain.study import Study

_MOST_CHARACTERS = 100
_SUFFIX = re.compile(r"-fork(?:-(\d+))?$")


def forked_document(study: Study, changes: Mapping[str, Any], space: Mapping[str, Parameter] | None = None) -> dict[str, Any]:
    """The fork's definition as a document: the old one's, with another space where one is given, and then the changes.

    It has a name of its own and the old study in `warm_start`, unless the changes say otherwise; a fork by another objective,
    or by several, can know nothing of the old trials. `initial` does not come along, as the old study has tried it. What is
    searched no longer, and not set by the changes, has the trainer's default.
    """
    old: dict[str, Any] = study.definition.model_dump(mode="json")
    old |= {"name": forked_name(study.definition.name), "warm_start": [study.id], "initial": []}
    old["strategy"] = _unsettled(old["strategy"])
    if space is not None:
        old["space"] = {name: one.model_dump(mode="json", exclude_none=True) for name, one in space.items()}
    for one, other in (("objectives", "objective"), ("objective", "objectives")):
        if one in changes and other not in changes:
            old.pop(other, None)  # a definition has one of the two
    patch = dict(changes)
    if isinstance(patch.get("space"), dict):
        patch["space"] = dict(_ungrouped(patch["space"], old["space"]))
    found: dict[str, Any] = merged(old, patch)
    if "warm_start" not in patch and not _knows(found, study):
        found["warm_start"] = []
    space_changes = patch["space"] if isinstance(patch.get("space"), dict) else {}
    for name in [name for name, change in space_changes.items() if change is None]:
        _forget(found, study, patch, name)
    return found


def _unsettled(strategy: Mapping[str, Any]) -> Mapping[str, Any]:
    """The strategy with what was left open to choose anew: another space or budget may ask for another one."""
    if strategy["kind"] == "auto":
        return {"kind": "auto"}
    sampler = strategy.get("sampler")
    return {**strategy, "sampler": {"kind": "auto"}} if sampler and sampler["kind"] == "auto" else strategy


def forked_name(name: str) -> str:
    """The name with a suffix: `intents-fork`, `intents-fork-2`, ..."""
    found = _SUFFIX.search(name)
    suffix = f"-fork-{int(found[1] or 1) + 1}" if found else "-fork"
    return name[: found.start() if found else None][: _MOST_CHARACTERS - len(suffix)] + suffix


def _knows(document: Mapping[str, Any], study: Study) -> bool:
    """Whether what the old study measured says something of the new one."""
    old, trainer = study.definition, document.get("trainer")
    same_kind = isinstance(trainer, dict) and trainer.get("kind") == old.trainer.kind
    is_single = not document.get("outcomes") and not document.get("objectives")
    return same_kind and is_single and document.get("objective") == old.objective.model_dump(mode="json")


def _ungrouped(patch: Mapping[str, Any], known: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Changes of parameters in groups, under the names that the stored space has: `lora: {rank: ...}` as `lora.rank`."""
    for key, change in patch.items():
        name = prefix + key
        is_group = name not in known and any(other.startswith(f"{name}.") for other in known)
        if is_group and isinstance(change, dict) and "kind" not in change:
            yield from _ungrouped(change, known, f"{name}.")
        else:
            yield name, change


def _forget(document: dict[str, Any], study: Study, patch: Mapping[str, Any], name: str) -> None:
    """Take a key out of the trainer that stands there only because it was searched: its first value made the trainer whole."""
    if name not in study.definition.space or name in (document.get("space") or {}):
        return
    *groups, key = name.split(".")
    branch, own = document.get("trainer"), patch.get("trainer")
    for group in groups:
        branch = branch.get(group) if isinstance(branch, dict) else None
        own = own.get(group) if isinstance(own, dict) else None
    is_set = isinstance(own, dict) and key in own
    first = extremes(study.definition.space[name])[0][1]
    if isinstance(branch, dict) and not is_set and key in branch and identity(branch[key]) == identity(first):
        del branch[key]
