"""What a browser can be made to send. It carries the cookie along whoever caused the request.

So a cookie only counts under a name this service is bound to (against DNS rebinding), and for unsafe methods only on requests
from the service's own pages.
"""

import ipaddress
import re
from urllib.parse import urlsplit

from fastapi import Request

from service.domain import errors
from service.settings import Settings

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
_LOOPBACK_HOST = re.compile(r"(?:localhost|127\.0\.0\.1|\[::1\])(?::\d{1,5})?", re.IGNORECASE)


def check_host(request: Request, settings: Settings) -> None:
    """A name that somebody else's DNS points here is not ours. Raises Forbidden."""
    host = request.headers.get("Host", "")
    allowed = settings.allowed_hosts
    if _is_loopback(settings.host) and _LOOPBACK_HOST.fullmatch(host):
        return
    if allowed and re.sub(r":\d{1,5}$", "", host).lower() in {one.lower() for one in allowed}:
        return
    if allowed or _is_loopback(settings.host):
        raise errors.Forbidden(
            "Open the service under the address it printed: it is not known by this host name. Where it has another one, name it "
            "in `TUNEYARD_ALLOWED_HOSTS`."
        )


def check_origin(request: Request) -> None:
    """Another site's page can send what its visitor's browser signs. Raises Forbidden."""
    origin, site = request.headers.get("Origin"), request.headers.get("Sec-Fetch-Site")
    # Only the place is compared: behind a proxy that ends TLS, the scheme here is not the browser's.
    is_ours = origin is not None and _place_of(origin) == request.headers.get("Host", "").lower() != ""
    if (origin is not None and not is_ours) or (site is not None and site != "same-origin") or (origin is None and site is None):
        raise errors.Forbidden("With a session cookie, send this request from a page of this service, or use the token instead.")


def _place_of(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None


def _is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
