import json
from pathlib import Path
from typing import Any

import pytest

from service.client.address import DEFAULT_URL, find_address, home_folder, is_loopback, service_file, user_name
from service.client.errors import UnusableAddress
from service.settings import Layout


def a_home(folder: Path, url: str | None = "http://127.0.0.1:9999") -> Path:
    (folder / "run").mkdir(parents=True)
    if url is not None:
        service_file(folder).write_text(json.dumps({"url": url, "pid": 1}))
    (folder / "token").write_text("home-token\n")
    return folder


def test_what_is_given_comes_first(tmp_path: Path) -> None:
    environment = {"TUNEYARD_URL": "http://127.0.0.1:2", "TUNEYARD_TOKEN": "theirs", "TUNEYARD_HOME": str(a_home(tmp_path))}
    found = find_address("http://127.0.0.1:1/", "mine", environment=environment)
    assert (found.url, found.token) == ("http://127.0.0.1:1", "mine")


def test_the_environment_comes_before_the_home_folder(tmp_path: Path) -> None:
    environment = {"TUNEYARD_URL": "http://127.0.0.1:2/", "TUNEYARD_TOKEN": "theirs", "TUNEYARD_HOME": str(a_home(tmp_path))}
    found = find_address(environment=environment)
    assert (found.url, found.token) == ("http://127.0.0.1:2", "theirs")


def test_a_running_service_is_found_by_its_home_folder(tmp_path: Path) -> None:
    found = find_address(environment={"TUNEYARD_HOME": str(a_home(tmp_path))})
    assert (found.url, found.token) == ("http://127.0.0.1:9999", "home-token")


def test_without_a_running_service_the_default_address_is_used_with_the_home_folders_token(tmp_path: Path) -> None:
    found = find_address(home=a_home(tmp_path, url=None), environment={})
    assert (found.url, found.token) == (DEFAULT_URL, "home-token")


def test_the_home_folders_token_is_not_sent_to_another_machine(tmp_path: Path) -> None:
    assert find_address("https://example.org", home=a_home(tmp_path), environment={}).token is None


def test_the_home_folders_token_opens_the_service_of_that_folder_wherever_it_listens(tmp_path: Path) -> None:
    home = a_home(tmp_path, url="http://192.0.2.1:8080")
    assert find_address(home=home, environment={}).token == "home-token"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"url": 3}', '"x"'])
def test_a_damaged_service_file_is_ignored(tmp_path: Path, text: str) -> None:
    home = a_home(tmp_path)
    service_file(home).write_text(text)
    assert find_address(home=home, environment={}).url == DEFAULT_URL


def test_an_empty_home_folder_gives_the_default_address_and_no_token(tmp_path: Path) -> None:
    found = find_address(home=tmp_path, environment={})
    assert (found.url, found.token) == (DEFAULT_URL, None)


def test_client_and_service_agree_where_things_are_in_the_home_folder(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    assert (service_file(tmp_path), tmp_path / "token") == (layout.run / "service.json", layout.token)


def test_the_home_folder_is_below_the_users_home_unless_named() -> None:
    assert home_folder({}) == Path.home() / ".tuneyard"


@pytest.mark.parametrize(
    ("url", "local"),
    [("http://127.0.0.1:1", True), ("http://[::1]:1", True), ("http://localhost", True), ("http://10.0.0.1", False), ("", False)],
)
def test_addresses_of_this_machine_are_told_from_others(url: str, *, local: bool) -> None:
    assert is_loopback(url) is local


@pytest.mark.parametrize(
    ("given", "name"),
    [("ada", "ada"), ("Åse Ørn", "?se ?rn"), (" ada ", "ada"), ("a" * 70, "a" * 64), ("\t", "?")],
)
def test_who_asks_is_named_as_far_as_a_header_can_carry_it(given: str, name: str) -> None:
    assert user_name({"TUNEYARD_USER": given}) == name


SECRET = "s3cr3t-of-somebody"
NO_TOKENS = [SECRET + rest for rest in ("\nsecond line\n", " and more", "\r\nX: y", "\u00e9", "\x00", SECRET * 1000)]


@pytest.mark.parametrize("text", NO_TOKENS)
def test_what_cannot_be_a_token_is_refused_where_it_is_read_and_never_repeated(tmp_path: Path, text: str) -> None:
    file = tmp_path / "named"
    file.write_text(text)
    home = a_home(tmp_path / "home")
    (home / "token").write_text(text)
    readings: list[tuple[str, dict[str, Any]]] = [
        (str(file), {"token_file": file, "environment": {}}),
        ("TUNEYARD_TOKEN", {"environment": {"TUNEYARD_TOKEN": text}}),
        ("The token given", {"token": text, "environment": {}}),
        (str(home / "token"), {"home": home, "environment": {}}),
    ]
    for place, given in readings:
        with pytest.raises(UnusableAddress, match="holds no token") as refused:
            find_address(**given)
        assert place in refused.value.detail
        assert SECRET not in refused.value.detail


def test_a_token_file_is_read_as_far_as_its_token_goes(tmp_path: Path) -> None:
    (tmp_path / "named").write_text(f"{SECRET}\n")
    assert find_address(token_file=tmp_path / "named", environment={"TUNEYARD_TOKEN": "theirs"}).token == SECRET


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe\x00"])
def test_a_token_file_without_a_token_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "named").write_bytes(content)
    with pytest.raises(UnusableAddress, match="holds no token"):
        find_address(token_file=tmp_path / "named", environment={})


def test_a_token_file_that_cannot_be_read_is_refused_with_why(tmp_path: Path) -> None:
    with pytest.raises(UnusableAddress, match=r"missing: No such file"):
        find_address(token_file=tmp_path / "missing", environment={})


def test_a_variable_that_is_empty_names_no_token(tmp_path: Path) -> None:
    assert find_address(home=a_home(tmp_path), environment={"TUNEYARD_TOKEN": ""}).token == "home-token"


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("127.0.0.1:8081", "http://127.0.0.1:8081"),
        ("localhost:1/", "http://localhost:1"),
        ("https://a.example/b/", "https://a.example/b"),
    ],
)
def test_an_address_without_a_scheme_is_one_of_http(given: str, url: str) -> None:
    assert find_address(given, environment={}).url == url


@pytest.mark.parametrize(
    "url",
    [
        "ftp://a.example",
        "http://",
        "http://a:port",
        "http://a:99999",
        "http://[",
        "a b",
        "http://a/?q=1",
        "http://a#b",
    ],
)
def test_what_is_no_address_is_refused_before_anything_is_sent(url: str) -> None:
    with pytest.raises(UnusableAddress, match="no address of a service"):
        find_address(url, environment={})


def test_where_a_token_is_from_is_known_and_why_there_is_none(tmp_path: Path) -> None:
    home = a_home(tmp_path / "home")
    assert find_address(home=home, environment={}).origin == f"in {home / 'token'}"
    assert find_address(environment={"TUNEYARD_TOKEN": "x"}).origin == "of TUNEYARD_TOKEN"
    assert "for a service of this machine" in find_address("http://a.example", home=home, environment={}).origin
    assert str(tmp_path / "none") in find_address(home=tmp_path / "none", environment={}).origin
