"""What of MLflow is there for who sees one project: pure rules from a request to the one that is sent on instead.

Each id in a request is looked up, and its query or body is written anew from what was understood (`gateway_fields`). A single
id of another project's is answered here, as MLflow answers one that never was. Among several it is replaced by one that never is,
so that MLflow answers as for that. Searches over everything get a clause with the project's tag, and their answers are looked
through once more (`gateway_answers`).

Where a field has the wrong type MLflow goes on with the fields before it. So nothing of a wrong type is sent (`gateway_values`),
and ids come first.
"""

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import parse_qsl, unquote, urlencode

from service.api.gateway_fields import IDS, SEVERAL, Field, Fields, fields_of, folder_of
from service.api.gateway_values import file, invalid, no_such, text, texts, value_of
from service.domain.access import PROJECT_TAG

NO_EXPERIMENT, NO_RUN = "-1", "0" * 32
"""Ids that are never there."""
_LONGEST_ID = 256
_MOST_IDS = 2000
_MOST_PARAMETERS = 5000


class Sees(Protocol):
    """What is one project's. Experiments and registered models are named after studies."""

    @property
    def project(self) -> str: ...

    def experiments(self, ids: Collection[str]) -> frozenset[str]:
        """Those of these ids that are the project's."""
        ...

    def runs(self, ids: Collection[str]) -> frozenset[str]:
        """Those of these ids that are the project's."""
        ...

    def studies(self, ids: Collection[str]) -> frozenset[str]:
        """Those of these ids that are the project's."""
        ...


@dataclass(frozen=True)
class Asked:
    """A request to MLflow: its method, canonical path, query and body."""

    method: str
    path: str
    query: bytes = b""
    body: bytes = b""


def within(asked: Asked, sees: Sees) -> Asked:
    """The request to send instead of a listed one, GraphQL aside. Raises Refusal."""
    fields = fields_of(asked.method, asked.path)
    if fields is None:
        raise no_such("There is nothing here for who sees one project.")
    folder = folder_of(asked.path)
    if folder is not None:
        _folder("path", unquote(folder), sees)
    if asked.method == "POST":
        sent = checked(fields, _of_body(asked.body), sees)
        return Asked(asked.method, asked.path, body=json.dumps(sent).encode())
    sent = checked(fields, _of_query(asked.query, fields), sees)
    return Asked(asked.method, asked.path, query=urlencode(sent, doseq=True).encode())


def checked(fields: Fields, given: Mapping[str, Any], sees: Sees, *, replacing: bool = False) -> dict[str, Any]:
    """What is sent on of these fields. Raises Refusal; `replacing` treats a single id as one among several."""
    if fields.get("run_id") is Field.RUN and not given.get("run_id"):
        given = {**given, "run_id": given.get("run_uuid")}  # as MLflow reads them
    sent: dict[str, Any] = {}
    for name, field in sorted(fields.items(), key=lambda one: one[1] not in IDS):
        value = given.get(name)
        if value == "" and field is Field.FILE:
            continue  # the folder above all
        if value is not None or field in IDS:
            is_id = field in IDS
            sent[name] = _within(name, field, value, sees, replacing=replacing) if is_id else value_of(name, field, value)
    return sent


def _of_query(query: bytes, fields: Fields) -> Mapping[str, Any]:
    """Parameters by name: all of those that may be several, the first of others, as MLflow takes them."""
    try:
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_MOST_PARAMETERS)
    except ValueError as error:
        raise invalid("The query cannot be read: send UTF-8, percent-encoded.") from error
    given: dict[str, Any] = {}
    for name, value in pairs:
        if fields.get(name) in SEVERAL:
            given.setdefault(name, []).append(value)
        else:
            given.setdefault(name, value)
    return given


def _of_body(body: bytes) -> Mapping[str, Any]:
    try:
        given = json.loads(body or b"{}")
    except (ValueError, RecursionError) as error:
        raise invalid("The body cannot be read: send one JSON object.") from error
    if not isinstance(given, dict):
        raise invalid("The body cannot be read: send one JSON object.")
    return given


def _within(name: str, field: Field, value: Any, sees: Sees, *, replacing: bool) -> Any:  # noqa: PLR0911 - one a kind
    """What is sent on of a field that keeps the request within the project."""
    match field:
        case Field.EXPERIMENT:
            return _one(name, value, sees.experiments, NO_EXPERIMENT if replacing else None, "No Experiment with id={} exists")
        case Field.RUN:
            return _one(name, value, sees.runs, NO_RUN if replacing else None, "Run with id={} not found")
        case Field.EXPERIMENT_NAME:
            return _one(name, value, sees.studies, None, "Could not find experiment with name '{}'")
        case Field.MODEL:
            return _one(name, value, sees.studies, None, "Registered Model with name={} not found")
        case Field.EXPERIMENTS:
            return _several(name, value, sees.experiments, NO_EXPERIMENT)
        case Field.RUNS:
            return _several(name, value, sees.runs, NO_RUN)
        case Field.LOCATIONS:
            found = _several(name, _located(name, value), sees.experiments, NO_EXPERIMENT)
            return [{"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": one}} for one in found]
        case Field.FOLDER:
            return _folder(name, value, sees)
        case Field.CLAUSES:
            return _clauses(name, value, sees)
        case _:
            raise ValueError(f"{field} does not keep a request within a project.")


def _one(name: str, value: Any, own: Callable[[Collection[str]], frozenset[str]], nobody: str | None, missing: str) -> str:
    """An id that is the project's. Raises Refusal for any other, unless that is replaced by `nobody`."""
    if value is None or value == "":
        raise invalid(f"Missing value for required parameter '{name}'.")
    asked = text(name, value)
    if len(asked) <= _LONGEST_ID and asked in own([asked]):
        return asked
    if nobody is None:
        raise no_such(missing.format(asked))
    return nobody


def _several(name: str, value: Any, own: Callable[[Collection[str]], frozenset[str]], nobody: str) -> list[str]:
    """Ids, those that are not the project's replaced. None becomes one that is never there: some routes take none for all."""
    asked = [] if value is None else texts(name, value)
    if len(asked) > _MOST_IDS:
        raise invalid(f"Invalid value for parameter '{name}' supplied: at most {_MOST_IDS} ids can be asked for at once.")
    found = own([one for one in asked if len(one) <= _LONGEST_ID])
    return [one if one in found else nobody for one in asked] or [nobody]


def _located(name: str, value: Any) -> list[Any] | None:
    if value is None:
        return None
    try:
        return [one["mlflow_experiment"]["experiment_id"] for one in value]
    except (TypeError, KeyError, IndexError) as error:
        raise invalid(f"Invalid value for parameter '{name}' supplied: only experiments hold traces here.") from error


def _folder(name: str, value: Any, sees: Sees) -> str:
    """A path below all artifacts whose first part is an experiment of the project: MLflow keeps nothing of others below that."""
    path = "" if value is None else file(name, value)
    if not path or not sees.experiments([path.partition("/")[0]]):
        raise no_such("No such artifact")
    return path


def _clauses(name: str, value: Any, sees: Sees) -> str:
    """A filter that begins with the project's clause: nothing that follows can cut it off, and MLflow knows no `OR`."""
    given = "" if value is None else text(name, value).strip()
    own = f"tags.`{PROJECT_TAG}` = '{sees.project}'"
    return f"{own} AND {given}" if given else own
