import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from service.client import Client, ProblemError, PullRefused, ServiceUnreachable, WaitedTooLong
from service.client.client import RECONNECT_SECONDS
from service.domain.events import EventKind
from tests.builders import a_document, a_study, a_trial
from tests.unit.stand_in import CHECKPOINT, STUDY_ID, TOKEN, StandIn, a_problem, an_event

URL = "http://127.0.0.1:1"
ENDED = an_event(9, EventKind.STUDY_STATE, state="completed", reason="budget_spent")


class Nap:
    """Remembers how long it was to sleep, and does not."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)

    def clock(self) -> float:
        return sum(self.seconds)


def a_client(service: StandIn, nap: Nap | None = None, token: str = TOKEN) -> Client:
    nap = nap or Nap()
    return Client(URL, token, transport=service, sleep=nap, clock=nap.clock)


def test_a_definition_file_is_sent_as_it_is(tmp_path: Path) -> None:
    service, file = StandIn(), tmp_path / "study.yaml"
    file.write_text("name: intents  # a comment\n")
    a_client(service).apply(file)
    (request,) = service.requests
    assert (request.content, request.headers["Content-Type"]) == (b"name: intents  # a comment\n", "application/yaml")


def test_yaml_that_starts_like_json_is_sent_as_yaml() -> None:
    service = StandIn()
    a_client(service).apply("{name: intents}")
    assert service.requests[0].headers["Content-Type"] == "application/yaml"


def test_a_broken_json_file_is_sent_as_json_so_that_its_error_is_one_of_json(tmp_path: Path) -> None:
    service, file = StandIn(), tmp_path / "study.json"
    file.write_text('{"name": }')
    a_client(service).apply(file)
    assert service.requests[0].headers["Content-Type"] == "application/json"


@pytest.mark.parametrize("definition", [a_document(), json.dumps(a_document()), json.dumps(a_document()).encode()])
def test_an_object_and_its_json_text_are_sent_as_json(definition: dict[str, object] | str | bytes) -> None:
    service = StandIn()
    assert a_client(service).apply(definition).id == STUDY_ID
    (request,) = service.requests
    assert (json.loads(request.content), request.headers["Content-Type"]) == (a_document(), "application/json")


def test_a_repeated_apply_carries_the_same_key() -> None:
    service = StandIn()
    service.failing = [httpx.ReadError("gone"), httpx.Response(503)]
    a_client(service).apply(a_document())
    keys = {request.headers["Idempotency-Key"] for request in service.requests}
    assert (len(service.requests), len(keys)) == (3, 1)


def test_two_applies_carry_different_keys() -> None:
    service = StandIn()
    client = a_client(service)
    client.apply(a_document())
    client.apply(a_document())
    assert len({request.headers["Idempotency-Key"] for request in service.requests}) == 2


def test_a_key_of_the_callers_is_sent() -> None:
    service = StandIn()
    a_client(service).apply(a_document(), "mine")
    assert service.requests[0].headers["Idempotency-Key"] == "mine"


def test_a_refusal_is_raised_with_its_problem_document() -> None:
    service = StandIn()
    service.failing = [a_problem(422, "Wrong.", violations=[{"pointer": "/space", "detail": "is empty"}])]
    with pytest.raises(ProblemError, match="Wrong") as raised:
        a_client(service).apply(a_document())
    assert raised.value.problem.violations[0].pointer == "/space"


def test_an_answer_that_is_no_problem_document_is_raised_too() -> None:
    service = StandIn()
    service.failing = [httpx.Response(418, text="<html>teapot</html>")]
    with pytest.raises(ProblemError, match="is this a Tuneyard service") as raised:
        a_client(service).study(STUDY_ID)
    assert raised.value.problem.status == 418


def test_a_service_that_does_not_answer_is_tried_again_and_then_named() -> None:
    service, nap = StandIn(), Nap()
    service.failing = [httpx.ConnectError("Connection refused")] * 10
    with pytest.raises(ServiceUnreachable, match="tuneyard serve"):
        a_client(service, nap).study(STUDY_ID)
    assert nap.seconds == [0.2, 0.5, 1.0]


def test_what_stands_in_a_request_that_cannot_be_sent_is_not_repeated() -> None:
    service = StandIn()
    service.failing = [httpx.LocalProtocolError(f"Illegal header value b'Bearer {TOKEN}'")] * 10
    with pytest.raises(ServiceUnreachable) as raised:
        a_client(service).study(STUDY_ID)
    assert TOKEN not in raised.value.detail


def test_the_pause_that_a_busy_service_asks_for_is_kept() -> None:
    service, nap = StandIn(), Nap()
    service.failing = [httpx.Response(503, headers={"Retry-After": "4"})]
    a_client(service, nap).study(STUDY_ID)
    assert nap.seconds == [4.0]


def test_a_refused_request_is_not_sent_again() -> None:
    service = StandIn()
    with pytest.raises(ProblemError):
        a_client(service, token="wrong").study(STUDY_ID)
    assert len(service.requests) == 1


def test_an_id_cannot_leave_its_place_in_the_path() -> None:
    service = StandIn()
    with pytest.raises(ProblemError):
        a_client(service).study("../datasets")
    assert service.requests[0].url.raw_path == b"/v1/studies/..%2Fdatasets"


def test_all_pages_of_a_list_are_read() -> None:
    service = StandIn(trials=tuple(a_trial(number) for number in range(7)))
    service.page_size = 3
    assert [trial.number for trial in a_client(service).trials(STUDY_ID)] == list(range(7))
    assert len(service.requests) == 3


def test_filters_are_repeated_on_every_page() -> None:
    service = StandIn(a_study("a-1"), a_study("b-2"))
    service.page_size = 1
    list(a_client(service).studies(state=["queued", "running"], name="i"))
    queries = [request.url.params for request in service.requests]
    assert [(query.get_list("state"), query["name"]) for query in queries] == [(["queued", "running"], "i")] * 2


def test_events_come_in_order_and_end_with_the_study() -> None:
    service = StandIn()
    service.streams = [[an_event(1, EventKind.STUDY_CREATED), an_event(2, EventKind.TRIAL_STATE, number=4), ENDED]]
    events = list(a_client(service).events(STUDY_ID))
    assert [(event.id, event.trial) for event in events] == [(1, None), (2, 4), (9, None)]


def test_no_more_is_asked_of_a_study_that_has_ended() -> None:
    service = StandIn()
    service.streams = [[an_event(1, EventKind.STUDY_CREATED)]]
    assert [event.id for event in a_client(service).events(STUDY_ID)] == [1]
    assert len(service.requests) == 2


def test_a_trials_reports_are_read_to_the_last() -> None:
    service = StandIn(trials=(a_trial(),))
    assert [report.number for report in a_client(service).reports(STUDY_ID, 0)] == list(range(1, 1501))
    assert len(service.requests) == 2


def test_the_end_of_a_study_that_was_extended_is_not_the_last_that_is_told() -> None:
    service = StandIn()
    again = an_event(10, EventKind.STUDY_STATE, state="queued")
    service.streams = [[ENDED, again], [an_event(11, EventKind.STUDY_STATE, state="completed")]]
    assert [event.id for event in a_client(service).events(STUDY_ID)] == [9, 10, 11]


def test_a_broken_event_stream_is_taken_up_where_it_broke_off() -> None:
    service = StandIn()
    service.streams = [[an_event(1, EventKind.STUDY_CREATED), None], [an_event(2, EventKind.TRIAL_STATE, number=0)], [ENDED]]
    assert [event.id for event in a_client(service).events(STUDY_ID)] == [1, 2, 9]
    assert [request.headers["Last-Event-ID"] for request in service.requests] == ["0", "1", "2"]


def test_whoever_listens_is_told_that_the_service_is_away_and_back() -> None:
    service, told = StandIn(), list[str | None]()
    service.streams = [[an_event(1, EventKind.STUDY_CREATED), None], [None], [ENDED]]
    client = a_client(service)
    events = client.events(STUDY_ID, on_connection=told.append)
    assert next(events).id == 1
    service.failing = [httpx.ConnectError("refused"), httpx.ConnectError("refused")]
    assert [event.id for event in events] == [9]
    assert told == ["refused", "refused", None]


def test_a_stream_that_breaks_and_is_there_again_is_nothing_to_tell_of() -> None:
    service, told = StandIn(), list[str | None]()
    service.streams = [[an_event(1, EventKind.STUDY_CREATED), None], [ENDED]]
    assert len(list(a_client(service).events(STUDY_ID, on_connection=told.append))) == 2
    assert told == []


def test_an_event_stream_that_never_comes_back_is_given_up_in_the_end() -> None:
    service, nap = StandIn(), Nap()
    service.failing = [httpx.ConnectError("refused")] * 100
    with pytest.raises(ServiceUnreachable):
        list(a_client(service, nap).events(STUDY_ID))
    assert tuple(nap.seconds) == RECONNECT_SECONDS


def test_waiting_ends_with_the_study() -> None:
    service = StandIn()
    service.streams = [[ENDED]]
    assert a_client(service).wait(STUDY_ID).state == "completed"


def test_waiting_ends_when_the_time_is_up() -> None:
    service, nap = StandIn(), Nap()
    service.streams = [[] for _ in range(50)]
    with pytest.raises(WaitedTooLong, match="within 5 s"):
        a_client(service, nap).wait(STUDY_ID, timeout=5)


@pytest.mark.parametrize(
    ("act", "asked"),
    [
        (lambda client: client.stop(STUDY_ID), f"POST /v1/studies/{STUDY_ID}:stop"),
        (lambda client: client.cancel(STUDY_ID), f"POST /v1/studies/{STUDY_ID}:cancel"),
        (lambda client: client.pause(STUDY_ID), f"POST /v1/studies/{STUDY_ID}:pause"),
        (lambda client: client.resume(STUDY_ID), f"POST /v1/studies/{STUDY_ID}:resume"),
        (lambda client: client.extend(STUDY_ID, {"trials": 9}), f"POST /v1/studies/{STUDY_ID}:extend"),
        (lambda client: client.patch(STUDY_ID, {"priority": 80}), f"PATCH /v1/studies/{STUDY_ID}"),
        (lambda client: client.delete(STUDY_ID), f"DELETE /v1/studies/{STUDY_ID}"),
        (lambda client: client.deletions(), "GET /v1/deletions"),
        (lambda client: client.best(STUDY_ID), f"GET /v1/studies/{STUDY_ID}/best"),
        (lambda client: client.trial(STUDY_ID, 0), f"GET /v1/studies/{STUDY_ID}/trials/0"),
        (lambda client: client.attempts(STUDY_ID, 0), f"GET /v1/studies/{STUDY_ID}/trials/0/attempts"),
        (lambda client: client.manifest(STUDY_ID), f"GET /v1/studies/{STUDY_ID}/best/checkpoint"),
        (lambda client: client.manifest(STUDY_ID, 0), f"GET /v1/studies/{STUDY_ID}/trials/0/checkpoint"),
        (lambda client: client.study_analysis(STUDY_ID), f"GET /v1/studies/{STUDY_ID}/analysis"),
        (lambda client: client.lineage(STUDY_ID), f"GET /v1/studies/{STUDY_ID}/lineage"),
        (lambda client: client.study_figure(STUDY_ID, "slices"), f"GET /v1/studies/{STUDY_ID}/analysis/slices.png"),
        (lambda client: client.datasets(), "GET /v1/datasets"),
        (lambda client: client.delete_dataset("intents"), "DELETE /v1/datasets/intents"),
        (lambda client: client.delete_dataset("intents", "a.csv"), "DELETE /v1/datasets/intents/files/a.csv"),
    ],
)
def test_each_method_asks_for_its_own_place(act: Callable[[Client], object], asked: str) -> None:
    service = StandIn(trials=(a_trial(),))
    act(a_client(service))
    assert service.asked() == [asked]


def test_a_pull_fetches_the_trial_that_was_best_when_it_began(tmp_path: Path) -> None:
    service = StandIn(trials=(a_trial(),))
    target = a_client(service).pull(STUDY_ID, tmp_path / "best")
    assert {name: (target / name).read_bytes() for name in CHECKPOINT} == CHECKPOINT
    assert service.asked()[1:] == [f"GET /v1/studies/{STUDY_ID}/trials/0/checkpoint/files/{name}" for name in CHECKPOINT]


def test_a_pull_begins_anew_when_the_export_was_replaced_meanwhile(tmp_path: Path) -> None:
    service = StandIn(trials=(a_trial(),))
    client = a_client(service)
    manifest = client.manifest(STUDY_ID)
    service.failing = [a_problem(412, "It is another one now.")]
    target = client.pull(STUDY_ID, tmp_path / "best", manifest=manifest)
    assert {name: (target / name).read_bytes() for name in CHECKPOINT} == CHECKPOINT
    assert service.asked()[2] == f"GET /v1/studies/{STUDY_ID}/trials/0/checkpoint"


def test_every_file_is_asked_for_as_the_manifest_has_it(tmp_path: Path) -> None:
    service = StandIn(trials=(a_trial(),))
    a_client(service).pull(STUDY_ID, tmp_path / "best")
    expected = [f'"{hashlib.sha256(content).hexdigest()}"' for content in CHECKPOINT.values()]
    assert [request.headers["If-Match"] for request in service.requests[1:]] == expected


def test_a_pull_into_a_foreign_folder_is_refused_before_anything_is_downloaded(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    service = StandIn()
    with pytest.raises(PullRefused):
        a_client(service).pull(STUDY_ID, tmp_path)
    assert service.asked() == [f"GET /v1/studies/{STUDY_ID}/best/checkpoint"]


def test_an_upload_is_sent_whole_on_every_try(tmp_path: Path) -> None:
    service, file = StandIn(), tmp_path / "train.csv"
    file.write_bytes(b"text,label\nhello,greeting\n")
    service.failing = [httpx.ReadError("gone")]
    assert a_client(service).upload("intents", file).uri == "dataset://intents/train.csv"
    assert [request.content for request in service.requests] == [file.read_bytes()] * 2
    assert service.asked()[0] == "PUT /v1/datasets/intents/files/train.csv"


def test_a_login_link_is_a_whole_address() -> None:
    assert a_client(StandIn()).login_link() == f"{URL}/login?code=abc&next=%2Fmlflow%2F"


def test_a_study_knows_its_page_in_mlflow() -> None:
    client = a_client(StandIn())
    assert client.mlflow_address(client.study(STUDY_ID)) == f"{URL}/mlflow/#/experiments/7/runs"


def test_a_trial_is_asked_for_with_its_parameters_and_under_a_key_of_its_own() -> None:
    service = StandIn()
    first, second = (a_client(service).request_trial(STUDY_ID, {"learning_rate": rate}) for rate in (1e-3, 2e-3))
    assert (first.place, dict(second.parameters)) == (2, {"learning_rate": 2e-3})
    assert service.asked() == [f"POST /v1/studies/{STUDY_ID}/trials"] * 2
    assert json.loads(service.requests[0].content) == {"parameters": {"learning_rate": 1e-3}}
    assert service.requests[0].headers["Idempotency-Key"] != service.requests[1].headers["Idempotency-Key"]


def test_a_trial_says_why_it_is_there() -> None:
    decisions = a_client(StandIn(trials=(a_trial(),))).trial(STUDY_ID, 0).decisions or []
    assert [(decision.kind, decision.by) for decision in decisions] == [("proposed", "tpe"), ("cut", "hyperband")]


def test_who_asks_is_said_in_every_request(monkeypatch: pytest.MonkeyPatch) -> None:
    service = StandIn()
    monkeypatch.setenv("TUNEYARD_USER", "grace")
    for user in ("ada", None):
        Client(URL, TOKEN, user=user, transport=service).study(STUDY_ID)
    assert [request.headers["Tuneyard-User"] for request in service.requests] == ["ada", "grace"]


def test_a_change_names_the_version_it_was_made_for_or_any() -> None:
    service = StandIn()
    client = a_client(service)
    client.patch(STUDY_ID, {"priority": 80})
    client.patch(STUDY_ID, {"budget": {"trials": 9}}, version=3)
    assert [request.headers["If-Match"] for request in service.requests] == ["*", '"3"']
    assert json.loads(service.requests[1].content) == {"budget": {"trials": 9}}
    assert service.requests[0].headers["Content-Type"] == "application/merge-patch+json"


def test_a_trial_is_asked_to_stop() -> None:
    service = StandIn(trials=(a_trial(),))
    assert a_client(service).stop_trial(STUDY_ID, 0).number == 0
    assert service.asked() == [f"POST /v1/studies/{STUDY_ID}/trials/0:stop"]
