"""`tuneyard serve`: one foreground process that starts the others, keeps them running, and stops them all when it is stopped."""

import contextlib
import errno
import fcntl
import json
import os
import random
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

from service import __version__
from service.api.auth import new_login_path, token_of
from service.checkpoints.opening import quick_storage
from service.checkpoints.space import is_full
from service.clock import SystemClock
from service.domain.errors import StorageAway
from service.execution import environment
from service.inherited import STORAGE, needed
from service.processes import Child, Children
from service.settings import Layout, Settings, write_private
from service.store.database import tracking_url
from service.store.sql import open_store
from service.store.versions import prepare
from service.tracking import server as mlflow

_START_SECONDS = 120.0
_PORTS = range(20_000, 30_000)
"""Above those of Ray's workers, and below those that Linux, macOS and Kubernetes give to whoever wants any."""
_UNIX_SOCKET_ROOM = 40
"""Longest temporary folder that leaves Ray room for its socket names (a unix socket's path has 107 characters)."""


def serve(settings: Settings) -> int:
    """Run the service until Ctrl-C or SIGTERM. Answers the exit code: 0 stopped, 1 could not start."""
    try:
        return _serve(settings)
    except OSError as error:
        if not is_full(error):
            raise
        sys.stderr.write(f"There is no room left on the disk of {settings.layout.root}: free some, then start again.\n")
        return 1


def _serve(settings: Settings) -> int:
    layout = settings.layout
    os.umask(0o077)  # of all that is started here, too
    try:
        _close_to_others(layout.root)
    except OSError as error:
        sys.stderr.write(f"The home folder {layout.root} cannot be used ({error.strerror}): choose another --home.\n")
        return 1
    with _only_one(layout) as alone, _short(layout.ray) as ray_folder:
        if not alone:
            sys.stderr.write(f"Another `tuneyard serve` uses {layout.root}: stop it first, or choose another --home.\n")
            return 1
        try:
            _check_storage(settings)
        except StorageAway as error:
            told = "" if error.cause in error.detail else f" It says: {error.cause}"
            sys.stderr.write(f"{error.detail}{told}\n")
            return 1
        try:
            listening = _listen(settings.host, settings.port)
        except OSError as error:
            is_taken = error.errno in (errno.EADDRINUSE, errno.EACCES)
            other = "--port" if is_taken else "--host, an address of this machine"
            sys.stderr.write(f"Cannot listen on {settings.host}:{settings.port} ({error.strerror}): choose another {other}.\n")
            return 1
        for stale in ("service.json", "capacity.json"):  # of one that was killed, or of a cluster that may have changed
            (layout.run / stale).unlink(missing_ok=True)
        leaving = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: leaving.set())
        with listening:
            children = Children(layout.logs, layout.run / "processes.json")
            try:
                return _run(settings, children, listening, ray_folder, leaving)
            finally:
                (layout.run / "service.json").unlink(missing_ok=True)
                children.stop()


def _run(settings: Settings, children: Children, listening: socket.socket, ray_folder: Path, leaving: threading.Event) -> int:
    layout = settings.layout
    token_of(settings)
    _keep_ray_token(layout)
    prepare(settings.store_url)
    ray_port, mlflow_port = free_ports(2)
    ray_address = settings.ray_address or f"127.0.0.1:{ray_port}"
    shared = _shared_environment(settings)
    upstream = mlflow.url(mlflow_port)
    module = [sys.executable, "-m"]
    children.start(_ray(settings, ray_address, ray_folder))
    tracking = tracking_url(settings.mlflow_database, settings.store_url)
    inherited = needed(os.environ, STORAGE if "://" in settings.mlflow_files else ())
    children.start(
        Child("mlflow", *mlflow.command(tracking, settings.mlflow_files, mlflow_port), inherited=inherited, stop_seconds=5)
    )
    api = [*module, "service.app", f"--fd={listening.fileno()}", f"--mlflow={upstream}"]
    children.start(Child("api", api, shared, pass_fds=[listening.fileno()], stop_seconds=8))
    controller = [*module, "service.daemon", f"--ray={ray_address}", f"--mlflow={upstream}"]
    children.start(Child("controller", controller, shared, stop_seconds=20))
    url = _url(settings.host, listening.getsockname()[1])
    if not _wait_until_ready(url, children, leaving):
        if not leaving.is_set():
            sys.stderr.write(f"The service did not come up in {_START_SECONDS:.0f} s. Its logs are in {layout.logs}.\n")
        return 0 if leaving.is_set() else 1
    write_private(layout.run / "service.json", json.dumps({"url": url, "pid": os.getpid()}))
    _greet(settings, url)
    while not leaving.wait(0.5):
        children.tend()
    sys.stderr.write("Stopping ...\n")
    return 0


def _check_storage(settings: Settings) -> None:
    """Whether what is set can be used, said at once and not in some log. Raises StorageAway."""
    storage = quick_storage(settings)
    if storage is not None:
        storage.check()


def _ray(settings: Settings, address: str, folder: Path) -> Child:
    if settings.ray_address:
        arguments = environment.node_command(address, folder)
    else:
        arguments = environment.head_command(int(address.rsplit(":", 1)[1]), folder, settings.cpus, settings.gpus)
    # Asked to leave in the middle of a failure, it may stay for ever; its own children notice whichever way it ends.
    token = settings.layout.ray_token
    # What runs on Ray needs neither the database nor its password, nor anything else that somebody's shell happens to hold.
    inherited = needed(os.environ, [*settings.worker_environment, *(STORAGE if settings.storage_url else ())])
    return Child("ray", arguments, environment.for_cluster(token), inherited, stop_seconds=15, orphaned=signal.SIGKILL)


def _keep_ray_token(layout: Layout) -> None:
    """The token of Ray in its file: the one that a container was given by its environment, else one of our own."""
    given = os.environ.get("RAY_AUTH_TOKEN")
    if given:
        write_private(layout.ray_token, given)
    elif not layout.ray_token.exists():
        write_private(layout.ray_token, secrets.token_hex(32))


def _shared_environment(settings: Settings) -> dict[str, str]:
    """The settings, for children that read them from their environment."""
    values = settings.model_dump(mode="json", exclude_none=True)
    return {
        f"TUNEYARD_{name.upper()}": json.dumps(value) if isinstance(value, list) else str(value)
        for name, value in {**values, "home": str(settings.layout.root)}.items()
    }


def _close_to_others(root: Path) -> None:
    """Make the home folder, or close one that is there: the token is in it, and what Ray leaves in it is open to all."""
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    root.chmod(0o700)


@contextlib.contextmanager
def _only_one(layout: Layout) -> Iterator[bool]:
    """Hold the home folder's lock; False when another process holds it."""
    layout.run.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (layout.run / "serve.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


@contextlib.contextmanager
def _short(folder: Path) -> Iterator[Path]:
    """`folder`, by a link with a short name where its own is too long for unix sockets."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if len(str(folder)) <= _UNIX_SOCKET_ROOM:
        yield folder
        return
    runtime = os.environ.get("XDG_RUNTIME_DIR") or "/tmp"  # noqa: S108 - a link of unguessable name, made exclusively
    link = Path(runtime) / f"tuneyard-{secrets.token_hex(6)}"
    link.symlink_to(folder)
    try:
        yield link
    finally:
        link.unlink(missing_ok=True)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # Accepted sockets inherit it. Without it an answer's body waits 40 ms until its head is acknowledged: uvicorn sets it on
    # what it has bound itself, and does not know of what kind this socket is.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        listening.bind((host, port))
        listening.listen(128)
    except OSError:
        listening.close()
        raise
    listening.set_inheritable(True)
    return listening


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, and that nobody is given who asks for any: it is some seconds until they are used."""
    found: list[int] = []
    for port in random.sample(_PORTS, len(_PORTS)):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found.append(port)
        if len(found) == count:
            return found
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def _url(host: str, port: int) -> str:
    reachable = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    return f"http://{reachable}:{port}"


def _wait_until_ready(url: str, children: Children, leaving: threading.Event) -> bool:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and not leaving.is_set():
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"{url}/readyz", timeout=5, trust_env=False).status_code == httpx.codes.OK:
                return True
        children.tend()
        leaving.wait(0.2)
    return False


def _greet(settings: Settings, url: str) -> None:
    """Say where everything is. A login link is for a person's eyes: what goes into a file or a journal gets none."""
    lines = [
        f"Tuneyard {__version__} is ready.",
        f"  API     {url}/v1   (description: {url}/docs)",
        f"  MLflow  {url}/mlflow/",
        f"  Home    {settings.layout.root}",
    ]
    if sys.stdout.isatty():
        access = open_store(settings.store_url).access
        login = new_login_path(access, SystemClock(), settings.login_code_seconds, token_of(settings), "/mlflow/")
        minutes = settings.login_code_seconds / 60
        lines += [
            f"Open this in a browser; it works once, for {minutes:.0f} minutes (`tuneyard login` makes another):",
            f"  {url}{login}",
        ]
    else:
        lines.append("`tuneyard login` makes a link that opens MLflow in a browser.")
    lines.append("Ctrl-C stops the service; its studies go on at the next start.")
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()
