"""Build both images and run what compose.yaml says with them, without a Docker engine: `make images`.

It builds with buildah, starts the containers with podman on networks of their own, sends a small study to the service, waits
for its end, pulls the best checkpoint, and looks at who the processes run as. Images that no registry gives are stood in for:
the base by a Debian of debootstrap, PostgreSQL by Debian's, the object storage by moto. It takes 10 GB of disk while it runs,
and ends with exit code 0 when all went well. debootstrap needs root; where registries answer, any user of podman will do.
"""

import argparse
import io
import json
import os
import re
import secrets
import shlex
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import yaml
from engine import ROOT, Engine, Unable

COMPOSE = ROOT / "docker" / "compose.yaml"
UID = 10001
_OURS = ("service", "ray-head", "ray-worker")
_ORDER = ("postgres", "storage", "ray-head", "ray-worker", "service")
_HEALTHY_SECONDS = 300
_STUDY_SECONDS = 600
_STUDY = """
name: rehearsal
trainer:
  kind: simulated
  epochs: 4
  metrics: {validation/loss: (rate - 0.3) ** 2 + 1 / epoch}
space: {values.rate: {kind: float, low: 0.0, high: 1.0}}
objective: {metric: validation/loss, direction: minimize}
strategy: {kind: hyperband, reduction_factor: 2, min_epochs: 1}
budget: {trials: 6}
resources: {cpus_per_trial: 1, gpus_per_trial: 0, max_concurrent_trials: 2}
"""
_NOT_ON_A_WORKER = ("mlflow", "fastapi", "sqlalchemy", "psycopg", "optuna", "service.api", "service.store", "service.search")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch", default="cpu", metavar="BACKEND", help="cpu, cu130, ...; `index`: what the package index has")
    parser.add_argument(
        "--share-home", action="store_true", help="mount the service's home into the workers, in place of a storage"
    )
    parser.add_argument("--folder", type=Path, help="keep the images there, and begin with them the next time")
    parser.add_argument("--keep", action="store_true", help="leave the containers running, to look around")
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="tuneyard-images-"))
    folder.mkdir(parents=True, exist_ok=True)
    engine = None
    try:
        engine = Engine(folder.resolve())
        _rehearse(engine, arguments)
    except Unable as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        _tidy(engine, arguments)
    _say("All went well.")
    return 0


def _tidy(engine: Engine | None, arguments: argparse.Namespace) -> None:
    if engine is None:
        return
    if arguments.keep:
        _say(f"The containers are left. Their storage is in {engine.folder}")
        return
    engine.remove_containers()
    if arguments.folder is None:
        engine.remove_storage()


def _rehearse(engine: Engine, arguments: argparse.Namespace) -> None:
    ports, values = {"8080": _free_port()}, {name: secrets.token_hex(16) for name in _variables()}
    services = _services(values)
    base = _base_image()
    if not engine.has(base):
        _timed(f"debootstrap in place of {base}", lambda: _bootstrap(engine, base))
    _say(f"containers start with: {engine.find_a_way(base)}")
    for name in ("postgres", "storage"):
        image = services[name]["image"]
        if not engine.has(image):
            stand_in = ROOT / "docker" / "stand_ins" / f"{name}.Dockerfile"
            _timed(f"stand-in for {image}", lambda file=stand_in, tag=image: engine.build(file, tag))  # type: ignore[misc]
    backend = "" if arguments.torch == "index" else arguments.torch
    for name in ("worker", "service"):
        image = f"tuneyard-{name}:0.1.0"
        file = ROOT / "docker" / f"{name}.Dockerfile"
        _timed(image, lambda f=file, tag=image: engine.build(f, tag, [f"TORCH_BACKEND={backend}"]))  # type: ignore[misc]
        _say(f"  {engine.megabytes(image):.0f} MB, of which {engine.megabytes(base):.0f} MB are its base")
    _look_at_worker(engine, services["ray-worker"]["image"])
    for network, settings in yaml.safe_load(COMPOSE.read_text())["networks"].items():
        engine.podman("network", "create", *(["--internal"] if settings.get("internal") else []), f"tuneyard-{network}")
    for name in _ORDER:
        command = _command(name, services[name], ports)
        if arguments.share_home and name in _OURS and name != "service":
            command = ["--volume=home:/var/lib/tuneyard", *(part for part in command if part != "--volume=/var/lib/tuneyard")]
        engine.start(*command)
        _timed(f"{name} is healthy", lambda n=name: _wait(lambda: engine.asks("healthcheck", "run", n), n, engine))  # type: ignore[misc]
    _use(engine, f"http://127.0.0.1:{ports['8080']}")
    for name in _OURS:
        _look_at_processes(engine, name)


def _use(engine: Engine, url: str) -> None:
    """Send a study, wait for its end and pull its best checkpoint, as a client on this machine does."""
    token = engine.podman("exec", "service", "cat", "/var/lib/tuneyard/token").strip()
    call = _Caller(url, token)
    _wait(lambda: call.status("/readyz") == 200, "service", engine)  # noqa: PLR2004
    study = json.loads(call("/v1/studies", _STUDY.encode()))
    _say(f"study {study['id']} is {study['state']}")
    deadline = time.monotonic() + _STUDY_SECONDS
    while study["state"] not in {"completed", "stopped", "cancelled", "failed", "paused"} and time.monotonic() < deadline:
        time.sleep(1)
        study = json.loads(call(f"/v1/studies/{study['id']}"))
    if study["state"] != "completed":
        raise Unable(f"The study is {study['state']}:\n{json.dumps(study, indent=1)}\n{_logs(engine, 'service')}")
    best = json.loads(call(f"/v1/studies/{study['id']}/best"))
    _say(f"study {study['id']} is completed; its best trial is {best['number']} with {best['parameters']}")
    with tarfile.open(fileobj=io.BytesIO(call(f"/v1/studies/{study['id']}/best/checkpoint/archive"))) as archive:
        names = sorted(member.name for member in archive.getmembers() if member.isfile())
    if not names:
        raise Unable("The best checkpoint has no files.")
    _say(f"its checkpoint has {', '.join(names)}")
    for name in ("mlflow.db", "artifacts"):
        if engine.asks("exec", "service", "test", "-e", f"/var/lib/tuneyard/mlflow/{name}"):
            raise Unable(f"MLflow keeps its {name} in the service's home, and not where a second service would find it.")
    found = json.loads(call("/mlflow/api/2.0/mlflow/experiments/search", b'{"max_results": 10}', "application/json"))
    _say(f"MLflow has {len(found['experiments'])} experiments in PostgreSQL")


class _Caller:
    """Requests with the token, by path."""

    def __init__(self, url: str, token: str) -> None:
        self._url = url
        self._token = token

    def __call__(self, path: str, body: bytes | None = None, kind: str = "application/yaml") -> bytes:
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": kind}
        try:
            with urlopen(Request(self._url + path, body, headers), timeout=60) as answer:  # noqa: S310 - ours, on loopback
                return bytes(answer.read())
        except OSError as error:
            said = error.read().decode(errors="replace") if hasattr(error, "read") else ""
            raise Unable(f"{path} answered {error}: {said}") from error

    def status(self, path: str) -> int:
        """200, or 0 for anything else."""
        try:
            self(path)
        except Unable:
            return 0
        return 200


def _look_at_worker(engine: Engine, image: str) -> None:
    """The image imports what a trial needs, and does not hold what only the service needs."""
    needed = "import service.execution.trainable, trainers.text_classification, trainers.distributed, accelerate, peft"
    answer = engine.answer_of(image, "python", "-c", needed)
    if answer.returncode:
        raise Unable(f"A worker cannot import what it needs:\n{answer.stderr}")
    find = "from importlib.util import find_spec as find\n"
    find += f"print(*[name for name in {_NOT_ON_A_WORKER!r} if find(name.split('.')[0]) and find(name)])"
    surplus = engine.answer_of(image, "python", "-c", find).stdout.split()
    if surplus:
        raise Unable(f"The worker's image holds what it should not: {', '.join(surplus)}")
    _say(f"a worker imports the trainable; it has no {', '.join(_NOT_ON_A_WORKER)}")


def _look_at_processes(engine: Engine, name: str) -> None:
    """Every process of a container runs as the user of the image, and nothing can be written beside its volumes."""
    script = (
        "import glob, re\n"
        "for path in glob.glob('/proc/[0-9]*/status'):\n"
        "    print(re.search(r'Uid:\\s+(\\d+)', open(path).read())[1])\n"
    )
    users = {int(line) for line in engine.podman("exec", name, "python", "-c", script).split()}
    if users != {UID}:
        raise Unable(f"Processes of {name} run as {sorted(users)}: the Dockerfile has to say USER {UID}.")
    if engine.asks("exec", name, "touch", "/opt/tuneyard/written"):
        raise Unable(f"The root file system of {name} can be written.")
    _say(f"{name}: all processes run as {UID}, on a root file system that is read-only")


def _bootstrap(engine: Engine, image: str) -> None:
    """A Debian with its Python, under the name of the base image."""
    if os.geteuid() != 0:
        raise Unable(f"{image} cannot be pulled, and debootstrap needs root: run this as root, or where a registry answers.")
    codename = image.rsplit("-", 1)[-1]
    folder = engine.folder / "debian"
    packages = "python3,python3-venv,ca-certificates"
    mirror = os.environ.get("DEBIAN_MIRROR", "")
    command = ["debootstrap", "--variant=minbase", f"--include={packages}", codename, str(folder), *([mirror] if mirror else [])]
    try:
        subprocess.run(command, capture_output=True, text=True, check=True)
    except FileNotFoundError:
        raise Unable("debootstrap not found: run `apt-get install debootstrap`.") from None
    except subprocess.CalledProcessError as error:
        raise Unable(f"debootstrap failed: {error.stdout[-2000:]}") from error
    (folder / "usr/local/bin/python").symlink_to("/usr/bin/python3")
    wanted = re.search(r"python:(\d+\.\d+)", image)
    held = next((folder / "usr/bin").glob("python3.*[0-9]")).name.removeprefix("python")
    if wanted is None or wanted[1] != held:
        raise Unable(f"Debian {codename} has Python {held}, and the images want {image}.")
    for path in (*(folder / "var/cache/apt/archives").glob("*.deb"), *(folder / "var/lib/apt/lists").glob("*_*")):
        path.unlink()
    engine.import_folder(folder, image)


def _base_image() -> str:
    found = re.search(r"^ARG PYTHON_IMAGE=(\S+)$", (ROOT / "docker" / "service.Dockerfile").read_text(), re.MULTILINE)
    if found is None:
        raise Unable("docker/service.Dockerfile names no PYTHON_IMAGE.")
    return found[1]


def _variables() -> set[str]:
    """Names that compose.yaml demands of its environment."""
    return set(re.findall(r"\$\{(\w+):\?", COMPOSE.read_text()))


def _services(values: Mapping[str, str]) -> dict[str, Any]:
    """The services of compose.yaml, with these values for its variables, and its defaults for the others."""

    def value(found: re.Match[str]) -> str:
        return values.get(found["name"], found["default"] or "")

    text = re.sub(r"\$\{(?P<name>\w+):[?-](?P<default>[^}]*)\}", value, COMPOSE.read_text())
    services: dict[str, Any] = yaml.safe_load(text)["services"]
    return services


def _command(name: str, service: Mapping[str, Any], ports: Mapping[str, int]) -> list[str]:
    """The arguments of `podman run` that say what a service of compose.yaml says."""
    command = [
        f"--name={name}",
        f"--hostname={name}",
        *(f"--network=tuneyard-{network}:alias={name}" for network in service["networks"]),
    ]
    command += [f"--env={key}={value}" for key, value in service.get("environment", {}).items()]
    command += [f"--volume={_absolute(volume)}" for volume in service.get("volumes", ())]
    command += [f"--tmpfs={path}" for path in service.get("tmpfs", ())]
    command += [f"--cap-drop={capability}" for capability in service.get("cap_drop", ())]
    command += [f"--security-opt={option.removesuffix(':true')}" for option in service.get("security_opt", ())]
    command += [
        f"--publish=127.0.0.1:{ports[port.rsplit(':', 1)[1]]}:{port.rsplit(':', 1)[1]}" for port in service.get("ports", ())
    ]
    command += [f"--shm-size={service['shm_size']}"] if "shm_size" in service else []
    command += [f"--user={service['user']}"] if "user" in service else []
    command += ["--read-only"] if service.get("read_only") else []
    command += ["--init"] if service.get("init") else []
    if "healthcheck" in service:
        kind, *test = service["healthcheck"]["test"]
        command.append(f"--health-cmd={test[0] if kind == 'CMD-SHELL' else shlex.join(test)}")
    return [*command, service["image"], *service.get("command", ())]


def _absolute(volume: str) -> str:
    """A volume of compose.yaml; a file is found from there."""
    return f"{COMPOSE.parent}/{volume.removeprefix('./')}" if volume.startswith("./") else volume


def _wait(is_so: Callable[[], bool], name: str, engine: Engine) -> None:
    deadline = time.monotonic() + _HEALTHY_SECONDS
    while not is_so():
        if time.monotonic() > deadline or not engine.asks("exec", name, "true"):
            raise Unable(f"{name} did not come up. Its end was:\n{_logs(engine, name)}")
        time.sleep(1)


def _logs(engine: Engine, name: str) -> str:
    return engine.podman("logs", "--tail", "40", name)


def _timed(what: str, act: Callable[[], object]) -> None:
    began = time.monotonic()
    act()
    _say(f"{what}: {time.monotonic() - began:.0f} s")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
