"""Presets in a study: `space: {preset: TASK/METHOD}` is written out before the study is checked, and stored written out.

So a study's record holds all that ran, and a later version of the preset changes nothing of it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from search_spaces.presets import Preset, presets
from service.domain.errors import InvalidDefinition, NotFound, Violation
from service.domain.pointers import pointer
from trainers.configs import CONFIGS

_PLACE = "/space/preset"


@dataclass(frozen=True)
class Expanded:
    """A document with its preset written out. `brought` are JSON pointers to what of it is the preset's."""

    document: Any
    preset: str = ""
    brought: tuple[str, ...] = ()

    def as_sent(self, violations: Iterable[Violation]) -> list[Violation]:
        """The violations, said of the document as it was sent: what the preset brought does not stand there."""
        own, foreign = list[Violation](), list[str]()
        for violation in violations:
            if any(f"{violation.pointer}/".startswith(f"{place}/") for place in self.brought):
                foreign.append(f"{violation.pointer}: {violation.detail}")
            else:
                own.append(violation)
        if foreign:
            said = "; ".join(foreign)
            own.append(
                Violation(_PLACE, f"`{self.preset}` does not fit the rest ({said}): set these keys, or name another preset")
            )
        return own


def preset_named(task: str, method: str) -> Preset:
    """The preset for a task and a method; raises NotFound."""
    found = presets().get(f"{task}/{method}")
    if found is None:
        raise NotFound(f"There is no preset '{task}/{method}': `GET /v1/presets` lists those there are.")
    return found


def expand_preset(document: Any) -> Expanded:
    """The decoded document, whatever it holds, with the preset it names written out; raises `InvalidDefinition`.

    The document's own keys come first: a key of its `space` takes the place of the preset's, or takes it out where it is null; a
    key that its `trainer` sets is not searched unless its `space` names it too.
    """
    given = document.get("space") if isinstance(document, dict) else None
    if not isinstance(given, dict) or "preset" not in given:
        return Expanded(document)
    trainer = document.get("trainer")
    settled = trainer if isinstance(trainer, dict) else {}
    preset = _preset_for(given["preset"], settled.get("kind"))
    own = {name: parameter for name, parameter in given.items() if name != "preset"}
    _check_removals(own, preset)
    searched = {
        name: parameter.model_dump(mode="json")
        for name, parameter in preset.space.items()
        if name in own or not _is_set(settled, name.split("."))
    }
    space = {name: parameter for name, parameter in {**searched, **own}.items() if parameter is not None}
    whole = {**document, "space": space}
    brought = [f"/space/{name}" for name in searched if name not in own]
    if settled is trainer:
        whole["trainer"] = _merged(deepcopy(preset.trainer), settled)
        brought += _missing(preset.trainer, settled, "/trainer")
    return Expanded(whole, preset.name, tuple(brought))


def _preset_for(name: Any, kind: Any) -> Preset:
    """The preset of this name, if it is one for this kind of trainer; a kind that does not exist is refused elsewhere."""
    fitting = [preset.name for preset in presets().values() if preset.task == kind]
    if not fitting and kind in CONFIGS:
        raise InvalidDefinition([Violation(_PLACE, f"there are no presets for trainer `{kind}`: write its space out")])
    fitting = fitting or list(presets())
    found = presets().get(name) if isinstance(name, str) else None
    if found is None:
        raise _refused(f"there is no preset {name!r}", fitting)
    if found.name not in fitting:
        raise _refused(f"`{name}` is for trainer `{found.task}`, not for `{kind}`", fitting)
    return found


def _refused(reason: str, fitting: Sequence[str]) -> InvalidDefinition:
    listed = ", ".join(f"`{name}`" for name in fitting)
    return InvalidDefinition([Violation(_PLACE, f"{reason}: name one of {listed}")])


def _check_removals(own: Mapping[str, Any], preset: Preset) -> None:
    """Raise InvalidDefinition for a parameter that is taken out of a preset without it: it is misspelled."""
    listed = ", ".join(f"`{name}`" for name in preset.space)
    detail = f"`{preset.name}` has no such parameter to take out: it has {listed}"
    unknown = [name for name, parameter in own.items() if parameter is None and name not in preset.space]
    if unknown:
        raise InvalidDefinition([Violation(pointer(["space", name]), detail) for name in unknown])


def _is_set(tree: Any, path: Sequence[str]) -> bool:
    """Whether the value at this path is settled there, by itself or by what stands in the place of a group above it."""
    for part in path:
        if not isinstance(tree, dict):
            return True
        if part not in tree:
            return False
        tree = tree[part]
    return True


def _merged(defaults: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The given values over the defaults, group by group."""
    both = {
        key: _merged(value, given[key])
        for key, value in defaults.items()
        if isinstance(value, Mapping) and isinstance(given.get(key), Mapping)
    }
    return {**defaults, **given, **both}


def _missing(defaults: Mapping[str, Any], given: Mapping[str, Any], place: str) -> Iterator[str]:
    """Pointers to the defaults that are not given."""
    for key, value in defaults.items():
        if key not in given:
            yield f"{place}/{key}"
        elif isinstance(value, Mapping) and isinstance(given[key], Mapping):
            yield from _missing(value, given[key], f"{place}/{key}")
