"""Groups in a study's space: `space: {lora: {rank: {...}}}` is written out as `lora.rank` before the study is checked."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from search_spaces.groups import flattened
from service.domain.errors import InvalidDefinition, Violation
from service.domain.pointers import pointer


@dataclass(frozen=True)
class Ungrouped:
    """A document without groups in its space. `places` are JSON pointers into the one that was sent, for those into this one."""

    document: Any
    places: Mapping[str, str] = field(default_factory=dict)

    def as_sent(self, violations: Iterable[Violation]) -> list[Violation]:
        """The violations, said of the document as it was sent."""
        return [Violation(self._moved(violation.pointer), violation.detail) for violation in violations]

    def _moved(self, place: str) -> str:
        above = [known for known in self.places if f"{place}/".startswith(f"{known}/")]
        longest = max(above, key=len, default=None)
        return place if longest is None else self.places[longest] + place[len(longest) :]


@contextmanager
def said_of(document: Any) -> Iterator[None]:
    """What is refused inside is said of this document, as it was sent."""
    try:
        yield
    except InvalidDefinition as refused:
        raise InvalidDefinition(ungroup(document).as_sent(refused.violations)) from refused


def ungroup(document: Any) -> Ungrouped:
    """The decoded document, whatever it holds, with the groups of its space written out; raises `InvalidDefinition`."""
    space = document.get("space") if isinstance(document, dict) else None
    if not isinstance(space, dict):
        return Ungrouped(document)
    found = flattened(space)
    if found.faults:
        raise InvalidDefinition([Violation(pointer(["space", *place]), detail) for place, detail in found.faults])
    places = {pointer(["space", *flat]): pointer(["space", *sent]) for flat, sent in found.places.items()}
    return Ungrouped({**document, "space": found.space}, places)
