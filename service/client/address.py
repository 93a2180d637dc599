"""Where the service is and what opens it, when nobody says so: the environment, then the service's home folder."""

import getpass
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from service.client.errors import UnusableAddress

DEFAULT_URL = "http://127.0.0.1:8080"
_TOKEN = re.compile(r"[!-~]{1,16384}")


@dataclass(frozen=True)
class Address:
    """A service's URL, without a trailing slash, and its token, if one was found.

    `origin` says where the token is from, or why there is none.
    """

    url: str
    token: str | None
    origin: str = "given"


def find_address(
    url: str | None = None,
    token: str | None = None,
    home: Path | None = None,
    environment: Mapping[str, str] = os.environ,
    *,
    token_file: Path | None = None,
) -> Address:
    """What was given, else `TUNEYARD_URL` and `TUNEYARD_TOKEN`, else what the service left in its home folder.

    The home folder's token is only for the service of that folder or one on this machine: it is not sent anywhere else.
    Raises `UnusableAddress` for what can be neither, and never repeats a token.
    """
    folder = home or home_folder(environment)
    announced = _announced_url(folder)
    chosen = _checked_url(url or environment.get("TUNEYARD_URL") or announced or DEFAULT_URL)
    if token:
        return Address(chosen, _checked_token(token, "The token given"), "given")
    if token_file is not None:
        return Address(chosen, _token_in(token_file), f"in {token_file}")
    if named := environment.get("TUNEYARD_TOKEN"):
        return Address(chosen, _checked_token(named, "TUNEYARD_TOKEN"), "of TUNEYARD_TOKEN")
    if chosen != announced and not is_loopback(chosen):
        return Address(chosen, None, f"that of {folder} is for a service of this machine alone")
    own = folder / "token"
    if text := _text_of(own):
        return Address(chosen, _checked_token(text, str(own)), f"in {own}")
    return Address(chosen, None, f"there is none in {folder}, which is no service's home, or one that you may not read")


def home_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """The service's home folder: `TUNEYARD_HOME` or `~/.tuneyard`."""
    return Path(environment.get("TUNEYARD_HOME") or "~/.tuneyard").expanduser().absolute()


def user_name(environment: Mapping[str, str] = os.environ) -> str | None:
    """Who asks: `TUNEYARD_USER`, or the name of this process's user, as far as a header can carry it."""
    try:
        found = environment.get("TUNEYARD_USER") or getpass.getuser()
    except (OSError, KeyError):  # a user without a name, as in some containers
        return None
    return re.sub(r"[^ -~]", "?", found).strip()[:64].strip() or None


def service_file(home: Path) -> Path:
    """Where a running service says how to reach it."""
    return home / "run" / "service.json"


def is_loopback(url: str) -> bool:
    """Whether a URL stays on this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _checked_url(text: str) -> str:
    """The address of a service; HTTP where it does not say how. Raises `UnusableAddress`."""
    url = text if "://" in text else f"http://{text}"
    try:
        parts = urlsplit(url)
        is_one = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        is_one = False
    if not is_one or not re.fullmatch(r"[^\s\x00-\x1f\x7f]+", url) or parts.query or parts.fragment:
        raise UnusableAddress(f"{text!r} is no address of a service: give it as http://HOST:PORT, in --url or TUNEYARD_URL.")
    return url.rstrip("/")


def _token_in(file: Path) -> str:
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise UnusableAddress(f"Cannot read the token file {file}: {error.strerror}.") from error
    return _checked_token(text, f"The token file {file}")


def _checked_token(text: str, place: str) -> str:
    """The token, if a header can carry it. Raises `UnusableAddress`, which says where it was found and not what it is."""
    token = text.strip()
    if not _TOKEN.fullmatch(token):
        raise UnusableAddress(f"{place} holds no token: that is one line of letters, digits and signs without blanks.")
    return token


def _announced_url(home: Path) -> str | None:
    text = _text_of(service_file(home))
    try:
        url = json.loads(text)["url"] if text else None
    except (ValueError, KeyError, TypeError):
        return None
    return url.rstrip("/") if isinstance(url, str) else None


def _text_of(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip() or None
    except OSError:
        return None
