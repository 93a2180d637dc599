"""Pages for people. They load nothing and run no script, which would run with the visitor's session."""

import re
from collections.abc import Mapping, Sequence
from html import escape

from fastapi import Request

HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
}
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 40rem; margin: 4rem auto; padding: 0 1rem; color-scheme: light dark }
"""
_CODE = re.compile(r"`([^`]+)`")
_HTML = "text/html"
_JSON = ("application/json", "application/problem+json")


def wants_page(request: Request) -> bool:
    """Whether who asks names HTML, and JSON no sooner, as browsers do that open an address."""
    wishes = _wishes(request.headers.get("Accept", ""))
    wish = wishes.get(_HTML, 0.0)
    return wish > 0 and all(wish >= wishes.get(other, 0.0) for other in _JSON)


def message(title: str, paragraphs: Sequence[str]) -> str:
    """A page that says one thing."""
    return whole(title, _STYLE, f"<h1>{marked(title)}</h1>" + "".join(f"<p>{marked(text)}</p>" for text in paragraphs))


def whole(title: str, style: str, body: str) -> str:
    """A page of this body, which is HTML already."""
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{style}</style>{body}</html>"
    )


def marked(text: str) -> str:
    """A sentence as HTML, with code where it has backticks."""
    return _CODE.sub(r"<code>\1</code>", escape(text))


def _wishes(accept: str) -> dict[str, float]:
    """How much each type is wanted, 0 to 1, by an `Accept` header (RFC 9110, section 12.5.1)."""
    wishes = {}
    for one in accept.split(","):
        kind, *parameters = (part.strip().lower() for part in one.split(";"))
        weight = next((text[2:] for text in parameters if text.startswith("q=")), "1")
        wishes[kind] = float(weight) if re.fullmatch(r"[01](\.[0-9]{0,3})?", weight) else 0.0
    return wishes
