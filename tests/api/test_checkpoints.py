import hashlib
import io
import tarfile

import pytest
from starlette.testclient import TestClient

from service.api.schemas import ManifestView
from service.domain.errors import StorageAway
from tests.api.conftest import MODEL, World

TYPE = "urn:tuneyard:problem:"
WEIGHTS = MODEL["model.safetensors"]
ETAG = f'"{hashlib.sha256(WEIGHTS).hexdigest()}"'
FILE = "/v1/studies/intents-abc123/best/checkpoint/files/model.safetensors"


@pytest.fixture
def exported(world: World) -> World:
    """A study whose best trial is number 1, with exports of both."""
    study = world.runs(world.has_study())
    world.has_trial(study, 0, [0.5])
    world.has_trial(study, 1, [0.9])
    world.checkpoints.export(study.id, 0, files={"config.json": b"of trial 0"})
    world.checkpoints.export(study.id, 1)
    return world


def test_the_manifest_names_every_file_of_the_best_trial(client: TestClient, exported: World) -> None:
    answer = client.get("/v1/studies/intents-abc123/best/checkpoint")
    manifest = ManifestView.model_validate_json(answer.content)
    assert (manifest.study_id, manifest.trial, manifest.report) == ("intents-abc123", 1, 1)
    assert {file.path: file.bytes for file in manifest.files} == {path: len(content) for path, content in MODEL.items()}
    assert manifest.bytes == sum(len(content) for content in MODEL.values())


def test_the_manifests_links_stay_with_the_trial_when_another_becomes_the_best(client: TestClient, exported: World) -> None:
    manifest = ManifestView.model_validate_json(client.get("/v1/studies/intents-abc123/best/checkpoint").content)
    exported.has_trial(exported.parts.store.studies.get("intents-abc123"), 2, [0.99])
    for file in manifest.files:
        content = client.get(file.link).content
        assert hashlib.sha256(content).hexdigest() == file.sha256
    assert client.get(manifest.archive).status_code == 200


def test_a_trials_own_checkpoint_is_answered(client: TestClient, exported: World) -> None:
    answer = client.get("/v1/studies/intents-abc123/trials/0/checkpoint/files/config.json")
    assert answer.content == b"of trial 0"


@pytest.mark.parametrize(
    ("name", "media_type"),
    [
        ("model.safetensors", "application/octet-stream"),
        ("config.json", "application/json"),
        ("README.md", "text/markdown; charset=utf-8"),
    ],
)
def test_a_file_comes_whole_and_as_an_attachment(client: TestClient, exported: World, name: str, media_type: str) -> None:
    answer = client.get(f"/v1/studies/intents-abc123/best/checkpoint/files/{name}")
    assert (answer.status_code, answer.content) == (200, MODEL[name])
    assert answer.headers["Content-Type"] == media_type
    assert answer.headers["Content-Length"] == str(len(MODEL[name]))
    assert answer.headers["Content-Disposition"] == f'attachment; filename="{name}"'
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert answer.headers["ETag"] == f'"{hashlib.sha256(MODEL[name]).hexdigest()}"'


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("bytes=0-0", 0, 1), ("bytes=10-19", 10, 20), ("bytes=2500-", 2500, 2560), ("bytes=2500-9999", 2500, 2560),
        ("bytes=-60", 2500, 2560), ("bytes=-99999", 0, 2560), ("bytes=2559-", 2559, 2560), ("bytes=-1", 2559, 2560),
    ],
)  # fmt: skip
def test_a_range_is_answered_with_that_part(client: TestClient, exported: World, asked: str, start: int, end: int) -> None:
    answer = client.get(FILE, headers={"Range": asked})
    assert (answer.status_code, answer.content) == (206, WEIGHTS[start:end])
    assert answer.headers["Content-Range"] == f"bytes {start}-{end - 1}/2560"
    assert answer.headers["Content-Length"] == str(end - start)


@pytest.mark.parametrize(
    "asked", ["bytes=0-1,5-6", "bytes=", "bytes=-", "bytes=x-y", "bytes=5-2", "lines=0-1", "0-1", "bytes=--1", "bytes=1 - 2"]
)
def test_a_range_that_is_not_a_single_one_is_ignored(client: TestClient, exported: World, asked: str) -> None:
    answer = client.get(FILE, headers={"Range": asked})
    assert (answer.status_code, answer.content) == (200, WEIGHTS)


@pytest.mark.parametrize("asked", ["bytes=2560-", "bytes=9999-10000", "bytes=-0"])
def test_a_range_behind_the_end_is_refused_with_the_size(client: TestClient, exported: World, asked: str) -> None:
    answer = client.get(FILE, headers={"Range": asked})
    assert (answer.status_code, answer.json()["type"]) == (416, TYPE + "range-not-satisfiable")
    assert answer.headers["Content-Range"] == "bytes */2560"


@pytest.mark.parametrize(
    ("condition", "status"), [(ETAG, 206), ('"other"', 200), (f"W/{ETAG}", 200), ("Wed, 02 Jan 2030 03:04:05 GMT", 200)]
)
def test_a_range_of_older_content_is_answered_with_all_of_the_new(
    client: TestClient, exported: World, condition: str, status: int
) -> None:
    answer = client.get(FILE, headers={"Range": "bytes=0-9", "If-Range": condition})
    assert answer.status_code == status


@pytest.mark.parametrize(("condition", "status"), [(ETAG, 304), (f'"x", W/{ETAG}', 304), ("*", 304), ('"x"', 200)])
def test_content_that_the_client_has_is_not_sent_again(client: TestClient, exported: World, condition: str, status: int) -> None:
    answer = client.get(FILE, headers={"If-None-Match": condition})
    assert answer.status_code == status
    assert answer.headers["ETag"] == ETAG
    assert answer.content == (b"" if status == 304 else WEIGHTS)


@pytest.mark.parametrize(("condition", "status"), [(ETAG, 200), ("*", 200), (f"W/{ETAG}", 412), ('"x"', 412)])
def test_other_content_than_the_client_wants_is_not_sent(
    client: TestClient, exported: World, condition: str, status: int
) -> None:
    assert client.get(FILE, headers={"If-Match": condition}).status_code == status


def test_head_tells_the_same_without_the_content(client: TestClient, exported: World) -> None:
    for place in (FILE, "/v1/studies/intents-abc123/trials/1/checkpoint/archive"):
        got, asked = client.get(place), client.head(place, headers={"Range": "bytes=0-1"})
        assert (asked.status_code, asked.content) == (200, b"")
        assert dict(asked.headers) == dict(got.headers)


@pytest.mark.parametrize(
    "path", ["pytorch_model.bin", "other.json", "../config.json", "/etc/passwd.txt", "%2e%2e/config.json", "", "."]
)
def test_only_what_the_manifest_names_leaves_the_service(client: TestClient, exported: World, path: str) -> None:
    exported.checkpoints.export("intents-abc123", 1, files={**MODEL, "pytorch_model.bin": b"pickle"})
    answer = client.get(f"/v1/studies/intents-abc123/best/checkpoint/files/{path}")
    assert answer.status_code == 404
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_a_trial_without_an_export_has_no_checkpoint(client: TestClient, exported: World) -> None:
    exported.has_trial(exported.parts.store.studies.get("intents-abc123"), 2, [0.1])
    for below in ("", "/archive", "/files/config.json"):
        answer = client.get(f"/v1/studies/intents-abc123/trials/2/checkpoint{below}")
        assert (answer.status_code, answer.json()["type"]) == (404, TYPE + "checkpoint-not-found")


def test_a_study_without_reports_has_no_best_checkpoint(client: TestClient, world: World) -> None:
    study = world.has_study()
    for below in ("", "/archive", "/files/config.json"):
        answer = client.get(f"/v1/studies/{study.id}/best/checkpoint{below}")
        assert (answer.status_code, answer.json()["type"]) == (404, TYPE + "no-best-trial")


def test_the_archive_holds_every_file_and_is_as_long_as_it_says(client: TestClient, exported: World) -> None:
    answer = client.get("/v1/studies/intents-abc123/best/checkpoint/archive")
    assert answer.headers["Content-Type"] == "application/x-tar"
    assert int(answer.headers["Content-Length"]) == len(answer.content)
    with tarfile.open(fileobj=io.BytesIO(answer.content), mode="r:") as archive:
        found = {entry.name: archive.extractfile(entry).read() for entry in archive}  # type: ignore[union-attr]  # all are files
        assert all((entry.mtime, entry.uid, entry.mode) == (0, 0, 0o644) for entry in archive)
    assert found == {f"intents-abc123-trial-1/{path}": content for path, content in MODEL.items()}


def test_the_same_checkpoint_gives_the_same_archive(client: TestClient, exported: World) -> None:
    place = "/v1/studies/intents-abc123/best/checkpoint/archive"
    first, second = client.get(place), client.get(place)
    assert first.content == second.content
    assert client.get(place, headers={"If-None-Match": first.headers["ETag"]}).status_code == 304


def test_long_names_and_odd_sizes_fit_into_the_archive(client: TestClient, exported: World) -> None:
    files = {f"{'n' * 150}.json": b"1" * 511, "one.json": b"1" * 512, "two.json": b"1" * 513, "none.txt": b""}
    exported.checkpoints.export("intents-abc123", 1, files=files)
    answer = client.get("/v1/studies/intents-abc123/best/checkpoint/archive")
    assert int(answer.headers["Content-Length"]) == len(answer.content)
    with tarfile.open(fileobj=io.BytesIO(answer.content), mode="r:") as archive:
        assert {entry.name: entry.size for entry in archive} == {
            f"intents-abc123-trial-1/{path}": len(content) for path, content in files.items()
        }


def test_an_export_whose_report_is_not_recorded_yet_is_not_the_trials_checkpoint(client: TestClient, exported: World) -> None:
    exported.checkpoints.export("intents-abc123", 1, report=2, files={"config.json": b"ahead of the store"})
    answer = client.get("/v1/studies/intents-abc123/trials/1/checkpoint")
    assert (answer.status_code, answer.json()["report"]) == (200, 1)
    assert client.get(FILE).content == WEIGHTS


@pytest.mark.parametrize("report", [1, 2])
@pytest.mark.parametrize("below", ["/archive", "/files/config.json"])
def test_files_of_two_exports_are_never_mixed(client: TestClient, exported: World, below: str, report: int) -> None:
    newer = {path: b"newer " + content for path, content in MODEL.items()}

    def replaced() -> None:
        exported.checkpoints.exports.clear()
        exported.checkpoints.export("intents-abc123", 1, report, newer)
        if report == 2:
            exported.reports(exported.parts.store.trials.get("intents-abc123", 1), [0.95])

    exported.checkpoints.at_next_open = [replaced]
    answer = client.get(f"/v1/studies/intents-abc123/best/checkpoint{below}")
    assert answer.status_code == 200
    assert b"newer " in answer.content
    assert answer.content.count(b"newer ") == (len(MODEL) if below == "/archive" else 1)


def test_exports_that_keep_changing_are_given_up(client: TestClient, exported: World) -> None:
    contents = iter(range(99))
    exported.checkpoints.at_next_open = [
        lambda: exported.checkpoints.export("intents-abc123", 1, files={**MODEL, "config.json": bytes([next(contents)])})
    ] * 99
    answer = client.get(FILE)
    assert (answer.status_code, answer.json()["type"]) == (404, TYPE + "checkpoint-not-found")


@pytest.mark.parametrize(
    "headers", [{}, {"Range": "bytes=0-1"}, {"Range": "bytes=9999-"}, {"If-None-Match": "*"}, {"If-Match": '"x"'}]
)
@pytest.mark.parametrize("below", ["/archive", "/files/model.safetensors"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_every_file_that_was_opened_is_closed(
    client: TestClient, exported: World, headers: dict[str, str], below: str, method: str
) -> None:
    client.request(method, f"/v1/studies/intents-abc123/best/checkpoint{below}", headers=headers)
    assert exported.checkpoints.opened
    assert all(file.closed for file in exported.checkpoints.opened)


def test_a_file_that_is_shorter_than_its_manifest_breaks_the_answer_off(exported: World, client: TestClient) -> None:
    whole = exported.checkpoints.manifest

    def promising(study_id: str, trial: int, report: int) -> object:
        manifest = whole(study_id, trial, report)
        longer = [type(file)(file.path, file.bytes + 1, file.sha256) for file in manifest.files]
        return type(manifest)(study_id, trial, manifest.report, tuple(longer))

    exported.checkpoints.manifest = promising  # type: ignore[method-assign,assignment]  # a disk that lost a byte
    with pytest.raises(EOFError, match="ends 1 bytes before"):
        TestClient(client.app).get(FILE, headers={"Authorization": client.headers["Authorization"]})


def test_the_analysis_of_a_trials_best_report_is_answered(client: TestClient, exported: World) -> None:
    exported.has_trial(exported.parts.store.studies.get("intents-abc123"), 2, [0.4, 0.8, 0.6])
    exported.checkpoints.analyses["intents-abc123", 2, 2] = {
        "task": "text-classification",
        "rows": 3,
        "worst": [float("nan"), 1.5],
    }
    answer = client.get(link_to_analysis(client, 2))
    assert answer.json() == {
        "study_id": "intents-abc123",
        "trial": 2,
        "report": 2,
        "analysis": {"task": "text-classification", "rows": 3, "worst": [None, 1.5]},
    }


def link_to_analysis(client: TestClient, number: int) -> str:
    return str(client.get(f"/v1/studies/intents-abc123/trials/{number}").json()["links"]["analysis"])


@pytest.mark.parametrize("accuracies", [[], [0.5]])
def test_a_trial_without_a_kept_analysis_has_none(client: TestClient, world: World, accuracies: list[float]) -> None:
    world.has_trial(world.has_study(), 0, accuracies)
    answer = client.get("/v1/studies/intents-abc123/trials/0/analysis")
    assert (answer.status_code, answer.json()["type"]) == (404, TYPE + "checkpoint-not-found")


def test_a_storage_that_hands_out_files_is_where_a_client_is_sent_that_asks_for_it(client: TestClient, exported: World) -> None:
    exported.checkpoints.links_to = "https://storage.example/models"
    sent = client.get(FILE, params={"redirect": True}, follow_redirects=False)
    assert (sent.status_code, sent.content, sent.headers["ETag"]) == (307, b"", ETAG)
    assert sent.headers["Location"].startswith("https://storage.example/models/model.safetensors?")
    assert sent.headers["Cache-Control"] == "no-store"
    assert (client.get(FILE).status_code, client.head(FILE, params={"redirect": True}).status_code) == (200, 200)


def test_a_client_that_wants_other_content_is_not_sent_anywhere(client: TestClient, exported: World) -> None:
    exported.checkpoints.links_to = "https://storage.example/models"
    answer = client.get(FILE, params={"redirect": True}, headers={"If-Match": '"x"'}, follow_redirects=False)
    assert (answer.status_code, "Location" in answer.headers) == (412, False)


def test_a_storage_that_hands_out_nothing_is_read_for_a_client_that_asks_to_be_sent_there(
    client: TestClient, exported: World
) -> None:
    answer = client.get(FILE, params={"redirect": True}, follow_redirects=False)
    assert (answer.status_code, answer.content) == (200, WEIGHTS)


def test_a_storage_that_is_away_is_said_so_and_asked_again_later(
    client: TestClient, exported: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise StorageAway("s3://models/tuneyard", "503 Service Unavailable, SlowDown", "GET http://10.0.0.1/models")

    monkeypatch.setattr(exported.checkpoints, "manifest", away)
    answer = client.get(FILE)
    assert (answer.status_code, answer.json()["type"], answer.headers["Retry-After"]) == (503, TYPE + "storage-away", "2")
    assert "SlowDown" in answer.json()["detail"]
    assert "10.0.0.1" not in answer.text
    assert client.get("/v1/studies/intents-abc123/trials/1").json()["has_checkpoint"] is None
