import pytest
from starlette.testclient import TestClient

from service.api import datasets
from service.api.schemas import DatasetFileView, DatasetsView
from service.settings import Settings
from tests.api.conftest import World, client_of, with_parts

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
    monkeypatch.setattr(datasets, "_WRITE_BYTES", 64)
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


def test_a_project_has_no_more_files_than_it_may(world: World) -> None:
    settings = Settings(home=world.parts.settings.home, max_uploaded_files=2)
    with client_of(with_parts(world, settings=settings)) as client:
        for at in range(2):
            assert client.put(f"/v1/datasets/many/files/{at}.csv", content=ROWS).status_code == 201
        answer = client.put("/v1/datasets/more/files/2.csv", content=ROWS)
        assert (answer.status_code, answer.json()["type"]) == (413, TYPE + "too-many-files")
        assert client.put("/v1/datasets/many/files/0.csv", content=ROWS).status_code == 200, "one may take another's place"
