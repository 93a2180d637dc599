"""The UI's GraphQL queries for who sees one project, written anew with inputs that were checked.

Whatever stood in an input as a literal, a variable, a default or a mixture of them becomes one variable with a value of ours; the
variables of the request go no further. Fields below the root take no arguments in MLflow's schema, and lead from a run of
the project to its own experiment and model versions only, so what a query selects of them is left as it is.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from graphql import (
    ArgumentNode,
    DefinitionNode,
    DocumentNode,
    FieldNode,
    NamedTypeNode,
    NameNode,
    OperationDefinitionNode,
    OperationType,
    SelectionSetNode,
    Undefined,
    VariableDefinitionNode,
    VariableNode,
    Visitor,
    print_ast,
    value_from_ast_untyped,
    visit,
)

from service.api.gateway_fields import CURVES, EXPERIMENT, FILES, RUN, RUNS, Fields
from service.api.gateway_rules import understood_query
from service.api.gateway_scope import Sees, checked
from service.api.gateway_values import invalid, no_such

_INPUTS: Mapping[str, tuple[str, Fields]] = {
    "mlflowGetExperiment": ("MlflowGetExperimentInput", EXPERIMENT),
    "mlflowGetMetricHistoryBulkInterval": ("MlflowGetMetricHistoryBulkIntervalInput", CURVES),
    "mlflowGetRun": ("MlflowGetRunInput", RUN),
    "mlflowListArtifacts": ("MlflowListArtifactsInput", FILES),
    "mlflowSearchRuns": ("MlflowSearchRunsInput", RUNS),
}
"""Fields of MLflow's query type with their input's type and fields. Not `mlflowSearchModelVersions`: its answer cannot be
looked through, as a query may call what it asks for by other names. The UI does not use it."""


def narrowed_query(body: bytes, sees: Sees) -> bytes:
    """The body of a GraphQL request as it is sent on. Raises Refusal, and what `read_only_query` raises."""
    asked, document = understood_query(body)
    operation = next(one for one in document.definitions if isinstance(one, OperationDefinitionNode))
    given = _variables(operation, asked.get("variables"))
    fields: list[FieldNode] = []
    definitions: list[VariableDefinitionNode] = []
    values: dict[str, Any] = {}
    for number, field in enumerate(operation.selection_set.selections):
        assert isinstance(field, FieldNode)  # noqa: S101 - `understood_query` has looked
        if field.name.value == "__typename":
            fields.append(field)
            continue
        if field.name.value not in _INPUTS:
            raise no_such("There is nothing here for who sees one project.")
        type_name, inputs = _INPUTS[field.name.value]
        name = f"input{number}"
        values[name] = _camel(checked(inputs, _input(field, given), sees, replacing=True))
        variable = VariableNode(name=NameNode(value=name))
        named = NamedTypeNode(name=NameNode(value=type_name))
        definitions.append(VariableDefinitionNode(variable=variable, type=named, directives=[]))
        argument = ArgumentNode(name=NameNode(value="input"), value=variable)
        fields.append(
            FieldNode(
                name=field.name,
                alias=field.alias,
                arguments=[argument],
                directives=field.directives,
                selection_set=field.selection_set,
            )
        )
    narrowed = OperationDefinitionNode(
        operation=OperationType.QUERY,
        name=operation.name,
        variable_definitions=definitions,
        directives=[],
        selection_set=SelectionSetNode(selections=fields),
    )
    others: list[DefinitionNode] = [one for one in document.definitions if one is not operation]
    sent = DocumentNode(definitions=[narrowed, *others])
    visit(sent, _NoDirectives())
    return json.dumps({"query": print_ast(sent), "variables": values}).encode()


class _NoDirectives(Visitor):
    """Refuses directives below the operation's own, which is left out: they would need variables that are too."""

    def enter_directive(self, *_of_node: Any) -> None:
        raise invalid("A query cannot have directives here.")


def _variables(operation: OperationDefinitionNode, given: Any) -> Mapping[str, Any]:
    """Values of the variables that the operation defines: those given, or else their defaults."""
    if given is not None and not isinstance(given, dict):
        raise invalid("The variables of a query are a JSON object.")
    found: dict[str, Any] = {}
    for definition in operation.variable_definitions or ():
        name = definition.variable.name.value
        if given and name in given:
            found[name] = given[name]
        elif definition.default_value is not None:
            found[name] = value_from_ast_untyped(definition.default_value)
    return found


def _input(field: FieldNode, variables: Mapping[str, Any]) -> Mapping[str, Any]:
    """The field's one argument as plain values, by MLflow's names."""
    arguments = {one.name.value: one.value for one in field.arguments or ()}
    if set(arguments) != {"input"} or len(field.arguments or ()) != 1:
        raise invalid(f"`{field.name.value}` takes exactly one argument, `input`.")
    value = value_from_ast_untyped(arguments["input"], dict(variables))
    if not isinstance(value, dict):
        raise invalid(f"The `input` of `{field.name.value}` is an object.")
    return {_snake(name): held for name, held in value.items() if held is not Undefined}


def _snake(name: str) -> str:
    return re.sub("([A-Z])", lambda found: "_" + found[1].lower(), name)


def _camel(values: Mapping[str, Any]) -> dict[str, Any]:
    return {re.sub("_([a-z])", lambda found: found[1].upper(), name): value for name, value in values.items()}
