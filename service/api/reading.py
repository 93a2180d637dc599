"""The OpenAPI document as a page to read: every operation, what it takes and answers, and every schema field by field."""

import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from service.api.pages import marked, whole

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color-scheme: light dark }
code, pre { font-size: 0.9em } pre { overflow-x: auto; padding: 0.8rem; border: 1px solid #8884 }
details { border: 1px solid #8884; border-radius: 6px; margin: 0.4rem 0; padding: 0.4rem 0.8rem }
summary { cursor: pointer } summary b { display: inline-block; min-width: 4.5rem }
table { border-collapse: collapse } td { padding: 0.1rem 1rem 0.1rem 0; vertical-align: top }
"""
_REF = "#/components/schemas/"
_LIMITS = {
    "exclusiveMinimum": "above {}", "minimum": "at least {}", "exclusiveMaximum": "below {}", "maximum": "at most {}",
    "multipleOf": "a multiple of {}",
    "minLength": "length at least {}", "maxLength": "length at most {}", "pattern": "matches {}",
    "minItems": "at least {} items", "maxItems": "at most {} items",
    "minProperties": "at least {} keys", "maxProperties": "at most {} keys",
}  # fmt: skip

_Schema = Mapping[str, Any]


def page_of(document: Mapping[str, Any]) -> str:
    """The whole page. Operations are folded; schemas stand open below them, so that links and a browser's search find them."""
    title, info = f"{document['info']['title']} {document['info']['version']}", document["info"]
    sections = []
    for tag in document["tags"]:
        operations = [
            _operation(method, path, operation)
            for path, methods in document["paths"].items()
            for method, operation in methods.items()
            if tag["name"] in operation.get("tags", []) and method != "head"
        ]
        if operations:
            sections.append(f"<h2>{escape(tag['name'])}</h2><p>{marked(tag['description'])}</p>{''.join(operations)}")
    description = "".join(f"<p>{marked(text)}</p>" for text in info["description"].split("\n\n"))
    schemas = "".join(_section(name, schema) for name, schema in sorted(document["components"]["schemas"].items()))
    return whole(
        f"{info['title']} API",
        _STYLE,
        f'<h1>{escape(title)}</h1>{description}<p>For programs: <a href="/openapi.json">openapi.json</a>. The runs: '
        f'<a href="/mlflow/">MLflow</a>. Below: <a href="#schemas">what is sent and answered, field by field</a>.</p>'
        f'{"".join(sections)}<h2 id="schemas">schemas</h2>{schemas}',
    )


def _operation(method: str, path: str, operation: _Schema) -> str:
    head = f"<b>{method.upper()}</b> <code>{escape(path)}</code> {marked(operation['summary'])}"
    parameters = "".join(
        f"<tr><td><code>{escape(one['name'])}</code><td>{escape(one['in'])}"
        f"<td>{_about(one['schema'] | one, is_required=one.get('required', False))}"
        for one in operation.get("parameters", [])
    )
    answers = "".join(
        f"<tr><td>{escape(status)}<td>{marked(answer.get('description', ''))}<td>{_contents(answer)}"
        for status, answer in operation["responses"].items()
    )
    about = f"<p>{marked(operation.get('description', ''))}</p><table>{parameters}</table>{_body(operation)}"
    return f"<details><summary>{head}</summary>{about}<h4>Answers</h4><table>{answers}</table></details>"


def _body(operation: _Schema) -> str:
    body = operation.get("requestBody")
    if body is None:
        return ""
    optional = "" if body.get("required") else " (may be left out)"
    kinds = ", ".join(f"<code>{escape(kind)}</code>" for kind in body["content"])
    media = next(iter(body["content"].values()))
    examples = "".join(f"<pre>{escape(_shown(one, indent=2))}</pre>" for one in _examples(media))
    what = f"<p>{_contents(body)} as {kinds}</p>{_fields(media.get('schema', {}))}"
    return f"<h4>Body{optional}</h4><p>{marked(body.get('description', ''))}</p>{what}{examples}"


def _contents(described: _Schema) -> str:
    """The types of a body or an answer, each once."""
    found = (_type(media.get("schema", {})) for media in described.get("content", {}).values())
    return " or ".join(dict.fromkeys(found))


def _examples(media: _Schema) -> Iterator[Any]:
    yield from (one["value"] for one in media.get("examples", {}).values())
    if "example" in media:
        yield media["example"]


def _section(name: str, schema: _Schema) -> str:
    what = _fields(schema) or f"<p>{_type(schema)}</p>"
    return f'<h3 id="{escape(name)}"><code>{escape(name)}</code></h3><p>{marked(schema.get("description", ""))}</p>{what}'


def _fields(schema: _Schema) -> str:
    """A table of an object's keys."""
    required = schema.get("required", [])
    rows = "".join(
        f"<tr><td><code>{escape(key)}</code><td>{_about(field, is_required=key in required)}"
        for key, field in schema.get("properties", {}).items()
    )
    others = schema.get("additionalProperties")
    rest = f"<tr><td>any other<td>{_about(others)}" if isinstance(others, dict) else ""
    return f"<table>{rows}{rest}</table>" if rows or rest else ""


def _about(field: _Schema, *, is_required: bool = False) -> str:
    """What a field is: its type and limits, whether it may be left out, and what it is for."""
    notes = [_type(field)]
    if is_required:
        notes.append("required")
    elif "default" in field:
        notes.append(f"left out: <code>{escape(_shown(field['default']))}</code>")
    return f"{'; '.join(note for note in notes if note)}<br>{marked(field.get('description', ''))}"


def _type(schema: _Schema) -> str:
    """A type and its limits, with links to the schemas that it names."""
    if "$ref" in schema:
        name = schema["$ref"].removeprefix(_REF)
        return f'<a href="#{escape(name)}">{escape(name)}</a>'
    if "const" in schema:
        return f"<code>{escape(_shown(schema['const']))}</code>"
    if "enum" in schema:
        return " | ".join(f"<code>{escape(_shown(one))}</code>" for one in schema["enum"])
    for choice in ("oneOf", "anyOf", "allOf"):
        if choice in schema and "type" not in schema:
            return " or ".join(dict.fromkeys(_type(one) for one in schema[choice]))
    limits = [escape(words.format(_shown(schema[key]))) for key, words in _LIMITS.items() if key in schema]
    return ", ".join([_kind(schema), *limits])


def _kind(schema: _Schema) -> str:
    kind = schema.get("type", "anything")
    match kind:
        case "array" if "items" in schema:
            return f"list of ({_type(schema['items'])})"
        case "object":
            keys = "".join(f", <code>{escape(key)}</code>" for key in schema.get("properties", {}))
            others = schema.get("additionalProperties")
            return f"object{keys} of ({_type(others)})" if isinstance(others, dict) else f"object{keys}"
        case str():
            return escape(schema.get("format", kind) if kind == "string" else kind)
        case _:
            return escape(" or ".join(kind))


def _shown(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)
