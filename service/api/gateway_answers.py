"""MLflow's answers to searches over everything, looked through once more for who sees one project.

The searches had a clause with the project's tag; what is shown is what the store says is the project's.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from service.api.gateway_fields import LOOKED_THROUGH, name_of
from service.api.gateway_scope import Sees
from service.api.gateway_values import no_such
from service.domain.access import PROJECT_TAG

_TOKEN = "next_page_token"  # noqa: S105 - a place in a list


def is_looked_through(path: str) -> bool:
    """Whether what this listed path answers is looked through."""
    return name_of(path) in LOOKED_THROUGH


def looked_through(path: str, content: bytes, sees: Sees) -> bytes:
    """The answer with what is the project's. Raises Refusal where that is nothing and there was one thing asked for."""
    answer: dict[str, Any] = json.loads(content)
    key = LOOKED_THROUGH[name_of(path)]
    if key == "experiment":
        found = answer["experiment"]
        if not sees.experiments([found["experiment_id"]]):
            raise no_such(f"Could not find experiment with name '{found['name']}'")
        return content
    items: Sequence[Mapping[str, Any]] = answer.get(key, [])
    if key == "experiments":
        own = sees.experiments([one["experiment_id"] for one in items])
        kept = [one for one in items if one["experiment_id"] in own]
    else:
        own = sees.studies([one["name"] for one in items])
        kept = [one for one in items if one["name"] in own]
    page = {key: kept} if kept else {}
    if _TOKEN in answer and all(_says(one, sees.project) for one in items):
        page[_TOKEN] = answer[_TOKEN]  # where the clause did not hold, it would count what others have
    return json.dumps(page).encode()


def _says(item: Mapping[str, Any], project: str) -> bool:
    return any(tag["key"] == PROJECT_TAG and tag.get("value") == project for tag in item.get("tags", []))
