"""What a process has loaded, seen from inside: the import contracts read the code, these tests run it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = ("ray", "torch", "transformers", "mlflow", "optuna")


def loaded_by(script: str, home: Path) -> set[str]:
    """Which of the heavy packages a fresh interpreter holds after it ran a script."""
    ending = f"\nimport json, sys\nprint(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))"
    child = subprocess.run(
        [sys.executable, "-c", script + ending],
        cwd=ROOT,
        env={"TUNEYARD_HOME": str(home), "HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert child.returncode == 0, child.stderr
    return set(json.loads(child.stdout.splitlines()[-1]))


def test_the_probe_sees_a_package_that_is_loaded(tmp_path: Path) -> None:
    assert loaded_by("import sys, types\nsys.modules['torch'] = types.ModuleType('torch')", tmp_path) == {"torch"}


@pytest.mark.parametrize("module", ["service.app", "service.client", "service.cli", "service.cli.app", "service.serve"])
def test_a_light_module_loads_nothing_heavy(module: str, tmp_path: Path) -> None:
    assert loaded_by(f"import {module}", tmp_path) == set()


def test_the_api_answers_and_refuses_without_loading_anything_heavy(tmp_path: Path) -> None:
    script = """
from service.app import make_app
from service.settings import Settings
from service.store.versions import prepare
from starlette.testclient import TestClient
from tests.builders import a_document

settings = Settings()
settings.layout.root.mkdir(parents=True, exist_ok=True)
prepare(settings.store_url)
with TestClient(make_app(settings, None)) as client:
    assert client.get("/healthz").status_code == 200
    token = settings.layout.token.read_text().strip()
    client.headers["Authorization"] = f"Bearer {token}"
    assert client.get("/openapi.json").status_code == 200
    assert client.get("/v1/studies").json()["items"] == []
    refused = client.post("/v1/studies", json=a_document())
    assert refused.status_code == 422, refused.text
"""
    assert loaded_by(script, tmp_path) == set()


def test_the_command_line_says_its_version_without_loading_anything_heavy(tmp_path: Path) -> None:
    assert loaded_by("from service.cli.app import run\nassert run(['version']) == 0", tmp_path) == set()
