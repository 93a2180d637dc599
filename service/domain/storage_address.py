"""The address of an object storage: what one may look like. Pure; whether something answers there is another question."""

from urllib.parse import SplitResult, urlsplit

from service.domain.errors import StorageRefused

_FORMS = "`s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX` or `file:///FOLDER`"
_BUCKETS = ("s3", "gs")


def checked_address(url: str) -> str:
    """The address without a slash at its end. Raises StorageRefused, which never repeats it: a secret may be in it."""
    try:
        parts = urlsplit(url.strip())
        parts.port  # noqa: B018 - raises for what is no number
    except ValueError as error:
        raise StorageRefused(f"TUNEYARD_STORAGE_URL is no address: give it as {_FORMS}.") from error
    refusal = _refusal(parts)
    if refusal is not None:
        raise StorageRefused(f"TUNEYARD_STORAGE_URL {refusal}")
    return f"{parts.scheme}://{parts.netloc}{parts.path}".rstrip("/")


def _refusal(parts: SplitResult) -> str | None:
    """What is wrong with it, and what to do."""
    path = parts.path.removeprefix("/").rstrip("/")
    is_bucket = parts.scheme in _BUCKETS
    found = [
        (
            "@" in parts.netloc,
            "has credentials in it, which end up in logs: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or Google's, instead.",
        ),
        (parts.scheme not in {*_BUCKETS, "file"}, f"is of a kind that is not known here: give it as {_FORMS}."),
        (
            bool(parts.query or parts.fragment),
            f"has a `?` or `#` in it: give it as {_FORMS}; all else is the environment's.",
        ),
        (
            is_bucket and (not parts.netloc or ":" in parts.netloc),
            f"names no bucket: give it as {_FORMS}; the address to reach it at goes into AWS_ENDPOINT_URL.",
        ),
        (
            not is_bucket and bool(parts.netloc or not path),
            "names no folder here: give it as `file:///FOLDER`.",
        ),
        (path != "" and not {"", ".", ".."}.isdisjoint(path.split("/")), "has an empty part or dots in its path: write it out."),
    ]
    return next((refusal for is_so, refusal in found if is_so), None)
