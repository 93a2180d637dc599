import re
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from search_spaces.presets import presets
from service.domain.definition import parse_definition
from tests.api.conftest import World, client_of


@pytest.fixture
def document(client: TestClient) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/openapi.json").json()
    return found


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def test_every_operation_is_described(document: dict[str, Any]) -> None:
    ids = [operation["operationId"] for _, operation in operations(document)]
    assert len(ids) == len(set(ids))
    for name, operation in operations(document):
        assert operation["summary"], name
        assert operation["description"], name
        assert operation["tags"], name
        assert {tag["name"] for tag in document["tags"]} >= set(operation["tags"]), name


def test_every_parameter_has_a_description_and_an_example(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        for parameter in operation.get("parameters", []):
            assert parameter.get("description"), (name, parameter["name"])
            has_example = "example" in parameter or "examples" in parameter or parameter["schema"].get("examples")
            assert has_example, (name, parameter["name"])


def test_every_field_has_a_description_and_an_example(document: dict[str, Any]) -> None:
    for name, schema in document["components"]["schemas"].items():
        for field, described in schema.get("properties", {}).items():
            assert described.get("description"), (name, field)
            reference = (
                "$ref" in described or "$ref" in str(described.get("items", "")) or "allOf" in described or "oneOf" in described
            )
            refers = reference or any("$ref" in option for option in described.get("anyOf", []))
            assert refers or "examples" in described or "const" in described, (name, field)


def test_every_error_is_a_problem_with_an_example_of_its_type(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        for status, response in operation["responses"].items():
            if not status.startswith(("4", "5")) or name == "GET /readyz":
                continue
            assert response["description"], (name, status)
            media = response["content"]["application/problem+json"]
            assert media["schema"] == {"$ref": "#/components/schemas/Problem"}
            for example in media["examples"].values():
                assert re.fullmatch(r"urn:tuneyard:problem:[a-z-]+", example["value"]["type"])
                assert str(example["value"]["status"]) == status


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    names = set(re.findall(r"'\$ref': '([^']+)'", str(document)))
    assert names <= {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}


def test_what_needs_the_token_says_so(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        is_open = name in {"GET /healthz", "GET /readyz"} or "/login" in name
        assert ("401" not in operation["responses"]) == (operation["security"] == [])
        assert (operation["security"] == []) == is_open or "login" in name, name


def test_the_definition_may_be_posted_in_json_and_yaml(document: dict[str, Any]) -> None:
    body = document["paths"]["/v1/studies"]["post"]["requestBody"]
    assert set(body["content"]) == {"application/json", "application/yaml", "application/x-yaml", "text/yaml"}
    assert body["required"]


def test_a_definition_may_name_a_preset_as_the_document_says(client: TestClient, document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    space = schemas["PostedStudyDefinition"]["properties"]["space"]
    assert space["properties"]["preset"]["enum"] == sorted(presets())
    assert {"type": "null"} in space["additionalProperties"]["anyOf"]
    assert "properties" not in schemas["StudyDefinition"]["properties"]["space"], "it is stored written out"
    examples = document["paths"]["/v1/studies"]["post"]["requestBody"]["content"]["application/json"]["examples"]
    assert "preset" in examples["preset"]["value"]["space"]
    for example in examples.values():
        assert parse_definition(example["value"])


def test_the_page_to_read_lists_every_operation_and_loads_nothing_from_elsewhere(
    client: TestClient, document: dict[str, Any]
) -> None:
    page = client.get("/docs")
    assert page.headers["Content-Type"].startswith("text/html")
    for path in document["paths"]:
        assert f"<code>{path}</code>" in page.text
    assert "<script" not in page.text
    assert not re.search(r"(src|href)=\"https?:", page.text)


def test_the_page_to_read_says_of_every_key_what_it_does_its_limits_and_its_default(
    client: TestClient, document: dict[str, Any]
) -> None:
    page = client.get("/docs").text
    assert (
        page.count("<code>learning_rate</code><td>number, above 0, at most 10; left out: <code>5e-05</code><br>Peak learning") > 1
    )
    for name, schema in document["components"]["schemas"].items():
        section = page.partition(f'<h3 id="{name}">')[2].partition("<h3")[0]
        assert section, name
        assert [key for key in schema.get("properties", {}) if f"<code>{key}</code>" not in section] == []
    body = page.partition("<code>/v1/studies</code> Start a study")[2].partition("</details>")[0]
    assert '<a href="#PostedStudyDefinition">' in body.partition("Answers")[0]
    assert "dataset://banking77" in body
    small = page.partition("<code>/v1/tokens</code> Make a token")[2].partition("</details>")[0]
    assert "<code>expires_in_days</code><td>" in small


def test_every_link_of_the_page_to_read_leads_somewhere_and_no_mark_up_is_left(client: TestClient) -> None:
    page = client.get("/docs").text
    assert set(re.findall(r'href="#([^"]+)"', page)) <= set(re.findall(r' id="([^"]+)"', page))
    assert "`" not in page
    assert "?." not in re.sub(r"<code>.*?</code>|<pre>.*?</pre>", "", page, flags=re.DOTALL)


def test_the_root_leads_to_the_page_to_read(stranger: TestClient) -> None:
    answer = stranger.get("/", follow_redirects=False)
    assert (answer.status_code, answer.headers["Location"]) == (307, "/docs")


def test_the_index_links_to_what_there_is(client: TestClient) -> None:
    links = client.get("/v1").json()["links"]
    for name in ("studies", "datasets", "docs", "openapi", "metrics"):
        assert client.get(links[name]).status_code == 200


def test_the_description_is_made_once(world: World) -> None:
    client = client_of(world.parts)
    first = client.get("/openapi.json").json()
    assert client.get("/openapi.json").json() == first
