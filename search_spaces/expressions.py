"""A small language for conditions on a trial's values, such as `batch_size * max_length <= 65536`, and for formulas of them.

Python's grammar reads it, and nothing of Python runs it: every node that is allowed is turned into a function here, all others
are refused. Numbers and nesting are bounded, so that no expression takes long.
"""

import ast
import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from search_spaces.values import Value, identity

MOST_CHARACTERS = 500
_DEEPEST = 60
_MOST_BITS = 1024
"""A whole number beyond it is too large: floats end there as well."""

_STRING = re.compile(r"'[^']*'|\"[^\"]*\"")
_LONE_EQUALS = re.compile(r"(?<![=<>!:])=(?!=)")

_Evaluate = Callable[[Mapping[str, Value]], Any]

_LANGUAGE = (
    "use numbers, strings, names, `+ - * / // % **`, comparisons, `in [...]`, `and`, `or`, `not`, `A if B else C`, "
    "and `min`, `max`, `abs`, `log`, `sqrt`"
)


class ExpressionError(ValueError):
    """A text that is no expression of this language; its message says why."""


@dataclass(frozen=True)
class Expression:
    """A condition on values by name, or a number made of them.

    Evaluating it raises ArithmeticError, TypeError or ValueError where it has no answer.
    """

    names: tuple[str, ...]
    evaluate: Callable[[Mapping[str, Value]], Any]


@lru_cache(maxsize=1024)
def read_expression(text: str) -> Expression:
    """The condition that a text is; raises ExpressionError."""
    tree = _tree(text)
    if not _may_be_condition(tree):
        raise ExpressionError("is no condition: compare it with something, as in `batch_size * max_length <= 65536`")
    return _expression(tree)


@lru_cache(maxsize=1024)
def read_formula(text: str) -> Expression:
    """The formula of a number that a text is; raises ExpressionError."""
    tree = _tree(text)
    if not _may_be_number(tree):
        raise ExpressionError("is no number: choose one by it, as in `1 if batch_size > 64 else 0`")
    found = _expression(tree)
    return Expression(found.names, _applied(lambda number: number, [found.evaluate]))


def _tree(text: str) -> ast.expr:
    if len(text) > MOST_CHARACTERS:
        raise ExpressionError(f"has {len(text)} characters, more than {MOST_CHARACTERS}: make several of it")
    try:
        return ast.parse(text.strip(), mode="eval").body
    except SyntaxError as error:
        lone = _LONE_EQUALS.search(_STRING.sub(lambda found: "_" * len(found[0]), text.strip()))
        if lone:
            raise ExpressionError(f"has `=` at character {lone.start() + 1}: write `==` to compare") from error
        raise ExpressionError(f"cannot be read at character {error.offset or 1} ({error.msg}): {_LANGUAGE}") from error
    except (ValueError, MemoryError, RecursionError) as error:
        raise ExpressionError(f"cannot be read ({error or 'it is nested too deeply'}): {_LANGUAGE}") from error


def _expression(tree: ast.expr) -> Expression:
    names: dict[str, None] = {}
    evaluate = _compiled(tree, names, 0)
    return Expression(tuple(names), evaluate)


def _may_be_condition(node: ast.expr) -> bool:
    match node:
        case ast.Compare() | ast.BoolOp() | ast.UnaryOp(op=ast.Not()) | ast.Name() | ast.Attribute() | ast.Constant(value=bool()):
            return True
        case ast.IfExp(body=body, orelse=orelse):
            return _may_be_condition(body) and _may_be_condition(orelse)
        case ast.BinOp() | ast.UnaryOp() | ast.Call(func=ast.Name()) | ast.Constant(value=int() | float() | str() | None):
            return False
        case _:
            return True  # refused for what it is


def _may_be_number(node: ast.expr) -> bool:
    match node:
        case ast.Compare() | ast.BoolOp() | ast.UnaryOp(op=ast.Not()) | ast.List() | ast.Tuple():
            return False
        case ast.Constant(value=bool() | str() | None):
            return False
        case ast.IfExp(body=body, orelse=orelse):
            return _may_be_number(body) and _may_be_number(orelse)
        case _:
            return True


def _compiled(node: ast.expr, names: dict[str, None], depth: int) -> _Evaluate:  # noqa: C901, PLR0911 - one case a kind of node
    """A function that evaluates the node; the names it asks for are added to `names`."""
    if depth > _DEEPEST:
        raise ExpressionError("is nested too deeply: make several of it")

    def inner(child: ast.expr) -> _Evaluate:
        return _compiled(child, names, depth + 1)

    match node:
        case ast.Constant(value=value):
            return _constant(value)
        case ast.Name() | ast.Attribute():
            name = _dotted(node)
            names[name] = None
            return lambda values: values[name]
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return _negated(inner(operand))
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _SIGNS:
            return _applied(_SIGNS[type(op)], [inner(operand)])
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
            return _applied(_ARITHMETIC[type(op)], [inner(left), inner(right)])
        case ast.BoolOp(op=op, values=parts):
            return _joined(isinstance(op, ast.Or), [inner(part) for part in parts])
        case ast.Compare(left=left, ops=ops, comparators=comparators):
            return _compared([inner(left), *map(inner, comparators)], [_comparison(op) for op in ops])
        case ast.IfExp(test=test, body=body, orelse=orelse):
            return _chosen(inner(test), inner(body), inner(orelse))
        case ast.Call(func=ast.Name(id=called), args=args, keywords=[]) if called in _FUNCTIONS:
            return _called(called, [inner(argument) for argument in args])
        case ast.List(elts=elements) | ast.Tuple(elts=elements):
            return _listed([inner(element) for element in elements])
        case _:
            raise ExpressionError(f"holds `{_shown(node)}`, which is not part of the language: {_LANGUAGE}")


def _shown(node: ast.expr) -> str:
    try:
        text = ast.unparse(node)
    except RecursionError:
        return "..."
    return text if len(text) <= 60 else text[:60] + "..."  # noqa: PLR2004 - enough to find it by


def _constant(value: Any) -> _Evaluate:
    if value is not None and not isinstance(value, bool | int | float | str):
        raise ExpressionError(f"holds {value!r}, which is no JSON value: {_LANGUAGE}")
    if isinstance(value, int | float) and not _is_in_bounds(value):
        raise ExpressionError("holds a number that is too large")
    return lambda _: value


def _dotted(node: ast.expr) -> str:
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=ast.Name() | ast.Attribute() as group, attr=name):
            return f"{_dotted(group)}.{name}"
        case _:
            raise ExpressionError(f"holds `{_shown(node)}`: dots stand between the names of a group and its parameter alone")


def _applied(function: Callable[..., Any], parts: Sequence[_Evaluate]) -> _Evaluate:
    def evaluate(values: Mapping[str, Value]) -> Any:
        return _bounded(function(*(_number(part(values)) for part in parts)))

    return evaluate


def _listed(parts: Sequence[_Evaluate]) -> _Evaluate:
    return lambda values: [part(values) for part in parts]


def _negated(part: _Evaluate) -> _Evaluate:
    return lambda values: not _truth(part(values))


def _joined(stops_at: bool, parts: Sequence[_Evaluate]) -> _Evaluate:  # noqa: FBT001 - the value that settles `or`, or `and`
    def evaluate(values: Mapping[str, Value]) -> bool:
        return next((stops_at for part in parts if _truth(part(values)) is stops_at), not stops_at)

    return evaluate


def _compared(parts: Sequence[_Evaluate], comparisons: Sequence[Callable[[Any, Any], bool]]) -> _Evaluate:
    def evaluate(values: Mapping[str, Value]) -> bool:
        left = parts[0](values)
        for part, holds in zip(parts[1:], comparisons, strict=True):
            right = part(values)
            if not holds(left, right):
                return False
            left = right
        return True

    return evaluate


def _chosen(test: _Evaluate, body: _Evaluate, orelse: _Evaluate) -> _Evaluate:
    return lambda values: body(values) if _truth(test(values)) else orelse(values)


def _called(name: str, arguments: Sequence[_Evaluate]) -> _Evaluate:
    function, fewest, most = _FUNCTIONS[name]
    if not fewest <= len(arguments) <= most:
        raise ExpressionError(f"gives `{name}` {len(arguments)} values: it takes {fewest if fewest == most else 'one or more'}")
    return _applied(function, arguments)


def _comparison(op: ast.cmpop) -> Callable[[Any, Any], bool]:
    found = _COMPARISONS.get(type(op))
    if found is None:
        raise ExpressionError("holds `is`, which is not part of the language: use `==` or `!=`")
    return found


def _number(value: Any) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{value!r} is no number")
    return _bounded(value)


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{value!r} is neither true nor false")
    return value


def _bounded(value: Any) -> int | float:
    if not isinstance(value, int | float) or not _is_in_bounds(value):
        raise OverflowError("a number is too large, or none")
    return value


def _is_in_bounds(value: float) -> bool:
    return value.bit_length() <= _MOST_BITS if isinstance(value, int) else math.isfinite(value)


def _power(base: float, exponent: float) -> Any:
    if isinstance(base, int) and isinstance(exponent, int) and exponent > 0 and base.bit_length() * exponent > 2 * _MOST_BITS:
        raise OverflowError("a number is too large")
    return base**exponent


def _same(one: Any, other: Any) -> bool:
    numbers = [isinstance(value, int | float) and not isinstance(value, bool) for value in (one, other)]
    return bool(one == other) if all(numbers) else identity(one) == identity(other)


def _in(one: Any, other: Any) -> bool:
    if isinstance(other, str):
        return one in other
    if not isinstance(other, list):
        raise TypeError(f"{other!r} is no list")
    return any(_same(one, item) for item in other)


def _ordered(function: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def holds(one: Any, other: Any) -> bool:
        if not (isinstance(one, str) and isinstance(other, str)):
            one, other = _number(one), _number(other)
        return function(one, other)

    return holds


_SIGNS: Mapping[type[ast.unaryop], Callable[..., Any]] = {ast.USub: operator.neg, ast.UAdd: operator.pos}
_ARITHMETIC: Mapping[type[ast.operator], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: _power,
}
_COMPARISONS: Mapping[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: _same,
    ast.NotEq: lambda one, other: not _same(one, other),
    ast.Lt: _ordered(operator.lt),
    ast.LtE: _ordered(operator.le),
    ast.Gt: _ordered(operator.gt),
    ast.GtE: _ordered(operator.ge),
    ast.In: _in,
    ast.NotIn: lambda one, other: not _in(one, other),
}
_FUNCTIONS: Mapping[str, tuple[Callable[..., Any], int, int]] = {
    "abs": (abs, 1, 1),
    "log": (math.log, 1, 1),
    "sqrt": (math.sqrt, 1, 1),
    "min": (lambda *numbers: min(numbers), 1, 100),
    "max": (lambda *numbers: max(numbers), 1, 100),
}
"""Each function with the fewest and the most values it takes."""
