"""Images and Compose: pinned, locked down, and in agreement with each other and with the settings."""

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from service import __version__
from service.settings import Settings

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
IMAGES = ("service", "worker")
OURS = {"service", "trainers", "search_spaces"}
DOCKERFILES = (*DOCKER.glob("*.Dockerfile"), *DOCKER.glob("*/*.Dockerfile"))
COMPOSE = (DOCKER / "compose.yaml").read_text()
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE)["services"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXACT = re.compile(r"[\w./-]+(?::\d+[\w./-]*)?:v?\d+\.\d+[\w.-]*(@sha256:[0-9a-f]{64})?")
"""A name with a version of two parts or more."""


def dockerfile(name: str) -> str:
    return (DOCKER / f"{name}.Dockerfile").read_text()


def named_images() -> list[str]:
    """Every image that is built upon or started, outside of the stages of a build."""
    found = [service["image"] for service in SERVICES.values()]
    for path in DOCKERFILES:
        text = path.read_text()
        found += re.findall(r"^ARG \w+_IMAGE=(\S+)$", text, re.MULTILINE)
        found += [image for image in re.findall(r"^FROM (\S+)", text, re.MULTILINE) if not image.startswith("${")]
        found += [
            image for image in re.findall(r"--from=(\S+)", text) if image not in re.findall(r" AS (\w+)$", text, re.MULTILINE)
        ]
    for path in (DOCKER / "kubernetes").rglob("*.yaml"):
        found += re.findall(r"\bimage: (\S+)", path.read_text())
    return found


def test_every_image_is_pinned_to_an_exact_version() -> None:
    assert len(named_images()) > len(IMAGES)
    assert [image for image in named_images() if not EXACT.fullmatch(image)] == []


@pytest.mark.parametrize("image", ["postgres", "postgres:17", "python:latest", "python:3-slim", "registry:5000/name"])
def test_an_image_that_may_change_does_not_count_as_pinned(image: str) -> None:
    assert not EXACT.fullmatch(image)


def test_our_own_images_have_the_version_of_this_release() -> None:
    ours = {image for image in named_images() if image.startswith("tuneyard-")}
    assert ours == {f"tuneyard-{name}:{__version__}" for name in ("service", "worker", "worker-gpu")}
    for name in IMAGES:
        assert f'org.opencontainers.image.version="{__version__}"' in dockerfile(name)


def test_service_and_workers_have_the_same_python() -> None:
    """Ray lets no node join that has another one."""
    bases = {image for path in DOCKERFILES for image in re.findall(r"^ARG PYTHON_IMAGE=(\S+)$", path.read_text(), re.MULTILINE)}
    assert len(bases) == 1


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_runs_as_a_user_of_its_own_and_says_how_it_is(name: str) -> None:
    last = dockerfile(name).rsplit("\nFROM ", 1)[1]
    assert "\nUSER 10001:10001\n" in last
    assert "\nHEALTHCHECK " in last
    assert "\nSTOPSIGNAL SIGTERM\n" in last


@pytest.mark.parametrize("name", IMAGES)
def test_no_secret_is_written_into_an_image(name: str) -> None:
    given = re.findall(r"(?:ARG|ENV) [^\n]*", dockerfile(name))
    assert [line for line in given if re.search(r"(PASSWORD|SECRET|TOKEN)\w*=(?!token\b|/run/secrets/)", line)] == []


def worker_requirements() -> list[str]:
    group: list[str] = PROJECT["dependency-groups"]["worker"]
    return group


def test_what_a_worker_needs_the_service_needs_in_the_same_version() -> None:
    assert set(worker_requirements()) - set(PROJECT["project"]["dependencies"]) == set()


@cache
def installed_on_a_worker() -> frozenset[str]:
    """Distributions that the worker's group brings, however indirectly."""
    found: set[str] = set()
    waiting = [Requirement(line) for line in worker_requirements()]
    seen: set[str] = set()
    while waiting:
        wanted = waiting.pop()
        if str(wanted) in seen:
            continue
        seen.add(str(wanted))
        found.add(canonicalize_name(wanted.name))
        for line in metadata.distribution(wanted.name).requires or ():
            requirement = Requirement(line)
            if requirement.marker is None or any(requirement.marker.evaluate({"extra": e}) for e in (*wanted.extras, "")):
                waiting.append(requirement)
    return frozenset(found)


def copied_to_a_worker() -> list[str]:
    """Files and folders of ours in the worker's image."""
    lines = re.findall(r"^COPY ((?!--from|constraints|pyproject)[^\n]+) \S+$", dockerfile("worker"), re.MULTILINE)
    return [path for line in lines for path in line.split()]


def is_copied(file: Path) -> bool:
    path = file.relative_to(ROOT).as_posix()
    return any(path == copied or path.startswith(f"{copied}/") for copied in copied_to_a_worker())


def imported_by(file: Path) -> set[str]:
    """Names of all modules that a file imports, inside functions too, but not those for type checkers."""
    names: set[str] = set()
    waiting: list[ast.AST] = [ast.parse(file.read_text())]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        waiting += ast.iter_child_nodes(node)
    return names


def file_of(module: str) -> Path | None:
    """The file of a module of ours."""
    path = ROOT.joinpath(*module.split("."))
    candidates = (path.with_suffix(".py"), path / "__init__.py")
    return next((file for file in candidates if module.split(".", maxsplit=1)[0] in OURS and file.is_file()), None)


@cache
def packages_not_on_a_worker() -> frozenset[str]:
    """Packages of this environment that only what the worker's group does not bring has.

    Asked in a process of its own: once Ray is imported, `sys.path` has the packages that Ray's wheel carries with it too.
    """
    script = "import json; from importlib import metadata; print(json.dumps(metadata.packages_distributions()))"
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    owners: dict[str, list[str]] = json.loads(answer.stdout)
    held = installed_on_a_worker()
    return frozenset(name for name, owner in owners.items() if not any(canonicalize_name(one) in held for one in owner)) - OURS


@cache
def loaded_on_a_worker() -> tuple[Path, ...]:
    """Our files that the trainable and the trainers load, now or later, in a process that has only a worker's packages."""
    script = f"""
import importlib, json, pkgutil, sys
away = frozenset({sorted(packages_not_on_a_worker())!r})
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in away:
            raise ModuleNotFoundError(f"a worker has no {{name}}", name=name)
sys.meta_path.insert(0, Missing())
import service.execution.trainable, trainers
for module in pkgutil.walk_packages(trainers.__path__, "trainers."):
    importlib.import_module(module.name)
ours = [m.__file__ for name, m in sys.modules.items() if name.split(".")[0] in {OURS!r}]
print(json.dumps([file for file in ours if file]))
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"}
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=False)
    assert answer.returncode == 0, answer.stderr
    waiting = [Path(file) for file in json.loads(answer.stdout.splitlines()[-1])]
    found: set[Path] = set()
    while waiting:
        file = waiting.pop()
        if file not in found:
            found.add(file)
            waiting += [other for module in imported_by(file) if (other := file_of(module))]
    return tuple(sorted(found))


def test_a_trial_imports_nothing_of_ours_that_the_workers_image_has_not() -> None:
    assert [str(file) for file in loaded_on_a_worker() if not is_copied(file)] == []


def test_a_trial_imports_no_package_that_the_workers_image_has_not() -> None:
    missing = {
        (file.name, name)
        for file in loaded_on_a_worker()
        for name in {module.split(".")[0] for module in imported_by(file)} & packages_not_on_a_worker()
    }
    assert missing == set()


@pytest.mark.parametrize("package", ["mlflow", "fastapi", "sqlalchemy", "psycopg", "optuna", "uvicorn", "scikit-learn"])
def test_a_worker_has_nothing_of_the_service(package: str) -> None:
    assert package not in installed_on_a_worker()


@pytest.mark.parametrize("name", SERVICES)
def test_a_container_is_locked_down(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


def test_only_the_api_is_published_and_only_on_loopback() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {"service": ["127.0.0.1:8080:8080"]}


def test_workers_share_no_disk() -> None:
    for name in ("ray-head", "ray-worker", "ray-worker-gpu"):
        assert [volume for volume in SERVICES[name]["volumes"] if ":" in volume] == []


def test_ray_keeps_its_own_files_in_memory() -> None:
    for name in ("ray-head", "ray-worker", "ray-worker-gpu"):
        [mount] = SERVICES[name]["tmpfs"]
        assert re.fullmatch(r"/\w+:size=\d+g,mode=1777", mount)
        assert SERVICES[name]["volumes"] == ["/var/lib/tuneyard"]


def test_a_workers_health_check_asks_its_own_raylet_and_the_heads_the_cluster() -> None:
    [port] = re.findall(r'HEALTHCHECK [^\n]*\n +CMD \["python", "-m", "service.execution.alive", "(\d+)"\]', dockerfile("worker"))
    assert f"--node-manager-port={port}" in dockerfile("worker")
    for name in ("ray-worker", "ray-worker-gpu"):
        assert f"--node-manager-port={port}" in SERVICES[name]["command"]
        assert "healthcheck" not in SERVICES[name]
    assert SERVICES["ray-head"]["healthcheck"]["test"] == ["CMD", "ray", "health-check", "--address", "127.0.0.1:6379"]


def test_mlflow_has_a_database_of_its_own_and_its_files_are_in_the_bucket() -> None:
    environment = SERVICES["service"]["environment"]
    urls = [environment[f"TUNEYARD_{name}DATABASE_URL"].partition("@") for name in ("", "MLFLOW_")]
    assert [place for _, _, place in urls] == ["postgres:5432/tuneyard", "postgres:5432/mlflow"]
    assert "CREATE DATABASE mlflow;" in (DOCKER / "databases.sql").read_text().splitlines()
    assert "./databases.sql:/docker-entrypoint-initdb.d/databases.sql:ro" in SERVICES["postgres"]["volumes"]
    assert urlsplit(environment["TUNEYARD_MLFLOW_ARTIFACTS"]).netloc == urlsplit(environment["TUNEYARD_STORAGE_URL"]).netloc
    assert "--extra s3" in dockerfile("service")


def test_every_variable_in_compose_is_one_that_the_service_reads() -> None:
    known = {f"TUNEYARD_{name.upper()}" for name in Settings.model_fields} | {"TUNEYARD_WORKER_CACHE_GB"}
    named = {name for service in SERVICES.values() for name in service.get("environment", {}) if name.startswith("TUNEYARD_")}
    assert named
    assert named - known == set()


def test_addresses_in_compose_are_those_of_its_services() -> None:
    environment = SERVICES["service"]["environment"]
    assert environment["TUNEYARD_RAY_ADDRESS"] == "ray-head:6379"
    assert "--port=6379" in dockerfile("worker")
    storage = urlsplit(environment["AWS_ENDPOINT_URL"])
    assert storage.hostname in SERVICES
    assert f":{storage.port}" in SERVICES["storage"]["command"]
    assert re.search(r"@postgres:5432/(\w+)", environment["TUNEYARD_DATABASE_URL"])
    assert "ray-head:6379" in " ".join(SERVICES["ray-worker"]["command"])


def test_a_service_is_on_a_network_with_each_that_it_talks_to() -> None:
    reached = {"service": ["postgres", "storage", "ray-head"], "ray-worker": ["storage", "ray-head"]}
    for name, others in reached.items():
        for other in others:
            assert set(SERVICES[name]["networks"]) & set(SERVICES[other]["networks"]), (name, other)
    assert "database" not in SERVICES["ray-worker"]["networks"]


def test_no_database_password_reaches_a_worker() -> None:
    for name in ("ray-head", "ray-worker", "ray-worker-gpu"):
        assert "POSTGRES_PASSWORD" not in json.dumps(SERVICES[name])


def test_every_secret_of_compose_has_to_be_given() -> None:
    assert set(re.findall(r"\$\{(\w+):\?", COMPOSE)) == {"POSTGRES_PASSWORD", "RAY_TOKEN", "STORAGE_SECRET"}
    assert re.findall(r"(?:PASSWORD|TOKEN|SECRET_KEY|SECRET_ACCESS_KEY): (?!.*\$\{)[^\n]+", COMPOSE) == []
