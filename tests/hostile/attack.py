"""What an attack is: a name, something to do to the service, and the answers that are right."""

import json
from collections.abc import Callable
from dataclasses import dataclass

from tests.hostile.target import Answer, Target

Act = Callable[[Target], Answer]


@dataclass(frozen=True)
class Attack:
    """`right` are the statuses that the last answer may have; `says` stands in it."""

    name: str
    act: Act
    right: frozenset[int]
    says: str = ""

    def __str__(self) -> str:
        return self.name


def attack(name: str, act: Act, *right: int, says: str = "") -> Attack:
    return Attack(name, act, frozenset(right), says)


def asking(method: str, path: str, who: str | None = "editor") -> Act:
    """Send it without a body."""
    return lambda target: target.ask(method, path, who)


def posting(document: object, path: str = "/v1/studies", who: str = "editor") -> Act:
    """Send it as JSON."""
    return sending(json.dumps(document).encode(), "application/json", path, who)


def sending(body: bytes, media_type: str, path: str = "/v1/studies", who: str = "editor") -> Act:
    return lambda target: target.ask("POST", path, who, body, {"Content-Type": media_type})


def putting(file: str, content: Callable[[], bytes]) -> Act:
    """Upload it, made only now."""
    return lambda target: target.ask("PUT", f"/v1/datasets/hostile/files/{file}", "editor", content())
