"""JSON merge patches (RFC 7396): what is named is replaced, null takes out, and objects are merged key by key."""

from typing import Any


def merged(document: Any, patch: Any) -> Any:
    """The document after the patch; neither of them changes."""
    if not isinstance(patch, dict):
        return patch
    kept = dict(document) if isinstance(document, dict) else {}
    for key, value in patch.items():
        if value is None:
            kept.pop(key, None)
        else:
            kept[key] = merged(kept.get(key), value)
    return kept
