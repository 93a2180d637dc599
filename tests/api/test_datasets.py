from contextlib import ExitStack
from dataclasses import replace

import pytest
from starlette.testclient import TestClient

from service.api import datasets, uploads
from service.api.schemas import DatasetFileView, DatasetsView
from service.api.uploads import AT_ONCE, AT_ONCE_OF_ONE, UploadsUnderWay
from service.domain.access import Project, Quotas
from service.domain.datasets import Allowance
from service.domain.errors import TooManyFiles, TooManyUploads
from service.domain.stored import Footprint
from service.settings import Settings
from tests.api.conftest import World, client_of, with_parts
from tests.builders import NOW, a_document, a_study

TYPE = "urn:tuneyard:problem:"
PLACE = "/v1/datasets/banking77/files/train.csv"
ROWS = b"text,category\nhello,a\nbye,b\n"


def test_a_new_file_is_stored_and_listed(client: TestClient, world: World) -> None:
    answer = client.put(PLACE, content=ROWS)
    view = DatasetFileView.model_validate_json(answer.content)
    assert answer.status_code == 201
    assert (view.uri, view.rows, view.columns) == ("dataset://banking77/train.csv", 2, ["text", "category"])
    listed = DatasetsView.model_validate_json(client.get("/v1/datasets").content)
    assert listed.uploads == [view]
    assert world.datasets.contents["banking77", "train.csv"] == ROWS


def test_a_file_takes_the_place_of_an_earlier_one(client: TestClient, world: World) -> None:
    client.put(PLACE, content=ROWS)
    assert client.put(PLACE, content=b"text,label\n").status_code == 200
    assert world.datasets.contents["banking77", "train.csv"] == b"text,label\n"


def test_a_body_in_pieces_and_larger_than_memory_allows_arrives_whole(
    client: TestClient, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets, "_IN_MEMORY_BYTES", 100)
    monkeypatch.setattr(uploads, "_WRITE_BYTES", 64)
    pieces = [b"text,label\n", *(b"%03d,x\n" % number for number in range(200))]
    assert client.put(PLACE, content=iter(pieces)).status_code == 201
    assert world.datasets.contents["banking77", "train.csv"] == b"".join(pieces)


def test_nothing_is_left_behind_on_disk(client: TestClient, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "_IN_MEMORY_BYTES", 10)
    client.put(PLACE, content=ROWS)
    client.put("/v1/datasets/banking77/files/train.exe", content=ROWS)
    assert list(world.parts.settings.layout.cache.iterdir()) == []


@pytest.mark.parametrize("content", [b"x" * 2001, iter([b"x" * 1000] * 3)])
def test_a_file_that_is_too_large_is_refused(client: TestClient, world: World, content: object) -> None:
    answer = client.put(PLACE, content=content)  # type: ignore[arg-type]  # bytes, or an iterator of them
    assert (answer.status_code, answer.json()["type"]) == (413, TYPE + "upload-too-large")
    assert world.datasets.files == {}


def test_a_length_that_is_too_large_is_refused_before_the_body(client: TestClient) -> None:
    answer = client.put(PLACE, content=b"", headers={"Content-Length": "2001"})
    assert (answer.status_code, answer.json()["type"]) == (413, TYPE + "upload-too-large")


def test_a_file_that_cannot_be_read_is_refused(client: TestClient) -> None:
    answer = client.put("/v1/datasets/banking77/files/train.exe", content=ROWS)
    assert (answer.status_code, answer.json()["type"]) == (422, TYPE + "unreadable-dataset")


@pytest.mark.parametrize(
    ("name", "file"), [("a..b", "x.csv"), (".a", "x.csv"), ("a", "%00.csv"), ("a", "x" * 101), ("a b", "x.csv")]
)
def test_a_name_that_could_leave_its_folder_is_refused(client: TestClient, world: World, name: str, file: str) -> None:
    answer = client.put(f"/v1/datasets/{name}/files/{file}", content=ROWS)
    assert (answer.status_code, answer.json()["type"]) == (422, TYPE + "unsafe-path")
    assert world.datasets.files == {}


def test_the_data_sets_that_are_always_there_are_listed(client: TestClient) -> None:
    builtins = client.get("/v1/datasets").json()["builtins"]
    assert {"builtin://api-docs", "builtin://digits"} <= {builtin["uri"] for builtin in builtins}


def test_a_project_has_no_more_files_and_bytes_than_it_may(world: World) -> None:
    settings = Settings(home=world.parts.settings.home, max_uploaded_files=2)
    with client_of(with_parts(world, settings=settings)) as client:
        client.put(PLACE, content=ROWS)
        world.parts.store.projects.set_quotas("default", Quotas(max_stored_gb=1e-6))
        world.parts.store.footprints.set(world.has_study().id, Footprint(400, NOW))
        client.put(PLACE, content=ROWS)
    assert world.datasets.allowances == [Allowance(files=2), Allowance(files=2, bytes=600)]


def test_a_refusal_for_too_many_files_is_a_problem(client: TestClient, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise TooManyFiles("The project has 2 files, and may have 2: replace one of them, or delete some.")

    monkeypatch.setattr(world.datasets, "put", full)
    answer = client.put(PLACE, content=ROWS)
    assert (answer.status_code, answer.json()["type"]) == (413, TYPE + "too-many-files")


@pytest.mark.parametrize("content", [b"x" * 700, iter([b"x" * 350] * 2)], ids=["at once", "in pieces"])
def test_what_would_exceed_a_projects_gigabytes_is_refused_before_it_is_stored(
    client: TestClient, world: World, content: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "_WRITE_BYTES", 64)
    world.parts.store.projects.set_quotas("default", Quotas(max_stored_gb=1e-6))
    world.parts.store.footprints.set(world.has_study().id, Footprint(400, NOW))
    answer = client.put(PLACE, content=content)  # type: ignore[arg-type]  # bytes, or an iterator of them
    assert (answer.status_code, answer.json()["type"]) == (409, TYPE + "quota-spent")
    assert "its checkpoints leave 600 for them (max_stored_gb)" in answer.json()["detail"]
    assert world.datasets.allowances == []
    assert client.put(PLACE, content=ROWS + b"x" * 550).status_code == 201
    assert client.put(PLACE, content=ROWS + b"y" * 550).status_code == 200, "what it takes the place of does not count"
    assert client.put(PLACE.replace("train", "test"), content=ROWS).status_code == 409


def test_uploads_count_towards_what_a_project_stores(client: TestClient, world: World) -> None:
    client.put(PLACE, content=ROWS)
    project = next(one for one in client.get("/v1/projects").json()["items"] if one["name"] == "default")
    assert (project["stored_bytes"], project["dataset_bytes"]) == (0, len(ROWS))
    changed = client.put("/v1/projects/default/quotas", json={"max_stored_gb": 2e-8}).json()
    assert changed["dataset_bytes"] == len(ROWS)
    refused = client.post("/v1/studies", json=a_document())
    assert (refused.status_code, refused.json()["type"]) == (409, TYPE + "quota-spent")
    assert "or data sets" in refused.json()["detail"]


@pytest.mark.parametrize("content", [b"x" * 700, iter([b"x" * 350] * 2)], ids=["at once", "in pieces"])
def test_a_disk_without_room_for_an_upload_and_its_copy_is_left_as_it_is(
    client: TestClient, world: World, content: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "_WRITE_BYTES", 64)
    world.datasets.free_bytes = 600
    answer = client.put(PLACE, content=content)  # type: ignore[arg-type]  # bytes, or an iterator of them
    assert (answer.status_code, answer.json()["type"]) == (507, TYPE + "no-space")
    assert world.datasets.allowances == []


def test_no_more_uploads_are_under_way_than_go_at_once() -> None:
    under_way = UploadsUnderWay()
    with ExitStack() as open_:
        for _ in range(AT_ONCE_OF_ONE):
            open_.enter_context(under_way.one_more("vision"))
        with pytest.raises(TooManyUploads), under_way.one_more("vision"):
            pass
        for _ in range(AT_ONCE - AT_ONCE_OF_ONE):
            open_.enter_context(under_way.one_more("speech"))
        with pytest.raises(TooManyUploads), under_way.one_more("third"):
            pass
    with under_way.one_more("vision"):
        pass


def test_an_upload_beyond_them_is_asked_to_come_again(world: World) -> None:
    client = client_of(world.parts)
    under_way: UploadsUnderWay = client.app.state.uploads  # type: ignore[attr-defined]  # it is a FastAPI
    with ExitStack() as open_:
        for _ in range(AT_ONCE_OF_ONE):
            open_.enter_context(under_way.one_more("default"))
        answer = client.put(PLACE, content=ROWS)
    assert (answer.status_code, answer.json()["type"]) == (503, TYPE + "too-many-uploads")
    assert answer.headers["Retry-After"] == "2"
    assert client.put(PLACE, content=ROWS).status_code == 201
    assert client.put("/v1/datasets/banking77/files/train.exe", content=ROWS).status_code == 422
    with under_way.one_more("default"):
        assert client.put(PLACE, content=ROWS).status_code == 200, "what was refused is not under way any more"


def test_a_data_set_and_a_file_of_it_are_deleted(client: TestClient) -> None:
    for file in ("train.csv", "test.csv", "more.csv"):
        client.put(f"/v1/datasets/banking77/files/{file}", content=ROWS)
    answer = client.delete(PLACE)
    assert (answer.status_code, answer.json()["bytes"]) == (200, len(ROWS))
    assert [one["uri"] for one in answer.json()["files"]] == ["dataset://banking77/train.csv"]
    assert len(client.delete("/v1/datasets/banking77").json()["files"]) == 2
    assert client.get("/v1/datasets").json()["uploads"] == []
    for gone in (PLACE, "/v1/datasets/banking77"):
        assert client.delete(gone).json()["type"] == TYPE + "dataset-not-found"


def test_what_a_study_needs_is_deleted_once_it_has_ended(client: TestClient, world: World) -> None:
    for file in ("train.csv", "other.csv"):
        client.put(f"/v1/datasets/intents/files/{file}", content=ROWS)
    client.put("/v1/datasets/intent/files/train.csv", content=ROWS)
    trainer = {**a_document()["trainer"], "data": {"train": "dataset://intents/train.csv", "validation_fraction": 0.1}}
    study = world.has_study(trainer=trainer)
    for place in ("/v1/datasets/intents", "/v1/datasets/intents/files/train.csv"):
        answer = client.delete(place)
        assert (answer.status_code, answer.json()["type"]) == (409, TYPE + "dataset-in-use")
        assert f"is used by '{study.id}'" in answer.json()["detail"]
    assert client.delete("/v1/datasets/intents/files/other.csv").status_code == 200
    assert client.delete("/v1/datasets/intent").status_code == 200
    world.ends(world.runs(study))
    assert client.delete("/v1/datasets/intents").status_code == 200


def test_another_projects_data_set_is_not_there_and_its_studies_keep_none_of_ours(client: TestClient, world: World) -> None:
    for name in ("vision", "speech"):
        world.parts.store.projects.add(Project(name, NOW))
    client.put(PLACE, content=ROWS, headers={"Tuneyard-Project": "vision"})
    for headers in ({}, {"Tuneyard-Project": "speech"}):
        answer = client.delete("/v1/datasets/banking77", headers=headers)
        assert (answer.status_code, answer.json()["type"]) == (404, TYPE + "dataset-not-found")
    trainer = {**a_document()["trainer"], "data": {"train": "dataset://banking77/train.csv", "validation_fraction": 0.1}}
    world.parts.store.studies.add(replace(a_study(trainer=trainer), project="speech"))
    assert client.delete("/v1/datasets/banking77", headers={"Tuneyard-Project": "vision"}).status_code == 200


@pytest.mark.parametrize("name", ["..%2f..%2fetc", "%2e%2e", ".projects", "a%00", "x" * 300])
def test_a_name_that_could_leave_its_folder_names_nothing_to_delete(client: TestClient, name: str) -> None:
    assert client.delete(f"/v1/datasets/{name}").status_code in {404, 405}
    assert client.delete(f"/v1/datasets/a/files/{name}").status_code in {404, 405}
