"""One running service under attack from all sides: every attack is answered as it should be, and leaves nothing behind.

A study trains meanwhile. At the end it is whole, and nobody's secret stands anywhere.
"""

import json
import re
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.domain.study import StudyState
from tests.hostile import browsers, callers, documents, files, paths, wire
from tests.hostile.attack import Attack
from tests.hostile.folders import make_hostile_models
from tests.hostile.target import Target, simulated, trained
from tests.hostile.watching import Footprint, Witness
from tests.running import RunningService, wait_until
from tests.walking import files_below, paths_below

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

CANARIES = {
    "HF_TOKEN": "hf_canaryCanaryCanaryCanaryCanary",
    "AWS_SECRET_ACCESS_KEY": "canary/aws/secret/access/key/0123456789",
    "SOMEBODYS_PASSWORD": "canary-of-a-shell",
    "OPENAI_API_KEY": "sk-canary-canary-canary",
}
DATABASE = "canary-of-the-database"
_MAY_HOLD = {"token", "ray/token"}
"""Files of the home folder whose content is a secret, by design."""


class Trap:
    """Listens where nobody may ever call."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.callers: list[bytes] = []
        threading.Thread(target=self._listen, daemon=True).start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._listening.getsockname()[1]}"

    def _listen(self) -> None:
        while True:
            line, _ = self._listening.accept()
            line.settimeout(2)
            self.callers.append(line.recv(1000))
            line.close()


@pytest.fixture(scope="module")
def trap() -> Trap:
    return Trap()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, trap: Trap) -> Iterator[RunningService]:
    root = tmp_path_factory.mktemp("hostile")
    (root / "tmp").mkdir()
    settings = {
        "TUNEYARD_DATABASE_URL": f"sqlite:///file:{root / 'home' / 'tuneyard.db'}?canary={DATABASE}&uri=true",
        "TUNEYARD_OFFLINE": "false", "HF_ENDPOINT": "http://127.0.0.1:9", "TUNEYARD_MAX_FAILED_LOGINS_PER_MINUTE": "100000",
        "TUNEYARD_MAX_UPLOADED_FILES": "40", "TMPDIR": str(root / "tmp"),
    }  # fmt: skip
    running = RunningService(root, **settings, **CANARIES)
    make_hostile_models(running.models, running.models / "tiny", root / "outside")
    try:
        yield running.start()
    finally:
        code = running.stop()
    assert code == 0, running.log()


@pytest.fixture(scope="module")
def witness(service: RunningService) -> Iterator[Witness]:
    with Witness(service) as watching:
        yield watching


@pytest.fixture(scope="module")
def target(service: RunningService, witness: Witness, trap: Trap) -> Target:
    found = Target(service, trap.address)
    found.prepare()
    with found.api("editor") as editor:
        made = editor.post("/v1/studies", json=trained(service.model)).raise_for_status().json()
    found.studies["own"] = made["id"]
    found.await_neighbour()
    return found


@pytest.fixture(scope="module")
def footprint(target: Target) -> Footprint:
    for who in ("operator", "editor"):  # what is loaded at first use is loaded now
        target.ask("POST", "/v1/studies:preview", who, json.dumps(simulated()).encode(), {"Content-Type": "application/json"})
    for path in ("/v1/models", "/openapi.json", "/docs", "/mlflow/"):
        target.ask("GET", path, "operator")
    return Footprint.of(target.service)


@pytest.fixture(scope="module")
def drips(target: Target, footprint: Footprint) -> wire.Drips:
    return wire.Drips(target)


ATTACKS = [one for module in (callers, documents, files, wire, browsers, paths) for one in module.attacks()]


def test_no_two_attacks_have_the_same_name() -> None:
    names = [attack.name for attack in ATTACKS]
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize("attack", ATTACKS, ids=str)
def test_it_is_refused_and_leaves_nothing(attack: Attack, target: Target, footprint: Footprint, drips: wire.Drips) -> None:
    answer = attack.act(target)
    assert answer.status in attack.right, f"{answer.head}\n\n{answer.body[:2000]}"
    assert attack.says in answer.body
    assert "Traceback" not in answer.body
    # MLflow is behind it, which answers late where much else is at work.
    wait_until(lambda: target.ask("GET", "/readyz", None).status == 200, 60, "the service is not ready any more")
    footprint.check(target.service, drips.connections)


def test_connections_that_drip_are_let_go(drips: wire.Drips) -> None:
    wait_until(drips.all_are_closed, 120, "some connections are still open", look_seconds=0.5)


def test_nobody_called_where_a_definition_pointed(target: Target, trap: Trap) -> None:
    with target.api("editor") as editor:
        assert editor.get("/v1/studies").status_code == 200
    assert trap.callers == []


def test_the_study_that_ran_meanwhile_is_whole(target: Target, tmp_path: Path) -> None:
    study_id = target.studies["own"]
    with target.service.client() as client:
        study = client.wait(study_id, timeout=200)
        assert (study.state, study.detail) == (StudyState.COMPLETED, None)
        client.pull(study_id, tmp_path / "best")
        assert (tmp_path / "best" / "model.safetensors").is_file()
        assert client.wait(target.studies["neighbour"], timeout=60).state is StudyState.COMPLETED
    with target.api("neighbour") as neighbour:
        uploads = {one["uri"] for one in neighbour.get("/v1/datasets").json()["uploads"]}
    assert uploads == {"dataset://intents/train.csv", "dataset://secret/rows.csv"}


def test_a_small_study_still_runs_to_its_end(target: Target) -> None:
    with target.api("editor") as editor:
        study_id = editor.post("/v1/studies", json=simulated(name="afterwards")).raise_for_status().json()["id"]
    with target.service.client() as client:
        assert client.wait(study_id, timeout=200).state is StudyState.COMPLETED


def test_a_project_has_no_more_files_than_it_may(target: Target) -> None:
    with target.api("editor") as editor:
        answers = [editor.put(f"/v1/datasets/many/files/{at}.csv", content=b"text,label\na,b\n") for at in range(41)]
        assert {answer.status_code for answer in answers} == {201, 413}
        assert answers[-1].json()["type"].endswith("too-many-files")
        assert editor.put("/v1/datasets/many/files/0.csv", content=b"text,label\nc,d\n").status_code == 200


def test_no_secret_is_in_a_file_an_answer_or_a_command_line(target: Target, witness: Witness) -> None:
    secrets = _secrets(target)
    found = [f"{name} in {path}" for path in _files(target.service.home) for name in _named_in(_content(path), secrets)]
    assert found == []
    assert _named_in(b"".join(target.heard), secrets) == []
    assert _named_in("\n".join(witness.command_lines).encode(), secrets) == []
    assert _named_in(target.service.log().encode(), secrets) == []


def test_what_needs_no_secret_is_given_none(target: Target, witness: Witness) -> None:
    secrets = _secrets(target)
    found = {command: _named_in("\n".join(held.values()).encode(), secrets) for command, held in witness.environments.items()}
    assert {command: names for command, names in found.items() if names} == {}
    assert {name for held in witness.environments.values() for name in held if name == "TUNEYARD_DATABASE_URL"} == set()
    assert any(command.startswith("ray::") for command in found), "a worker was looked at"
    assert any("service.tracking.server" in command for command in found), "MLflow was looked at"


def test_files_are_for_their_owner_alone(target: Target) -> None:
    home = target.service.home
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    open_to_others = {
        str(path.relative_to(home))
        for path in paths_below(home)
        if not path.is_symlink() and not path.is_socket() and _mode(path) & 0o077
    }
    # Ray opens its own folders to everybody by itself; they lie in one that nobody else may enter.
    assert {name for name in open_to_others if name != "ray" and not name.startswith("ray/session_")} == set()


def test_at_the_end_the_process_is_what_it_was(target: Target, footprint: Footprint) -> None:
    footprint.check(target.service)
    temporary = target.service.home.parent / "tmp"
    wait_until(lambda: not list(temporary.iterdir()), 120, f"temporary files are left: {list(temporary.iterdir())}")
    errors = (target.service.home / "logs" / "api.log").read_text()
    assert "Traceback" not in errors
    assert not re.search("[\\x00-\\x08\\x0b-\\x1f\\x7f]", errors), "nothing steers the terminal of who reads the log"


def _secrets(target: Target) -> dict[str, bytes]:
    known = {**CANARIES, "the database's": DATABASE, **{f"the token of {who}": token for who, token in target.tokens.items()}}
    known["Ray's"] = (target.service.home / "ray" / "token").read_text().strip()
    return {name: value.encode() for name, value in known.items()}


def _named_in(content: bytes, secrets: dict[str, bytes]) -> list[str]:
    return [name for name, value in secrets.items() if value in content]


def _files(home: Path) -> Iterator[Path]:
    for path in files_below(home):
        if not path.is_symlink() and str(path.relative_to(home)) not in _MAY_HOLD:
            yield path


def _mode(path: Path) -> int:
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except FileNotFoundError:  # gone meanwhile
        return 0


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:  # gone meanwhile
        return b""
