"""The mirror and the gateway against a real MLflow server, read back with MLflow's own client."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from service.domain.access import PROJECT_TAG
from service.domain.deletion import Forgotten
from service.domain.ports import Change
from service.domain.study import StudyReason
from service.domain.trial import TrialReason
from service.serve import free_ports
from service.store.memory import memory_store
from service.tracking import server
from service.tracking.mirror import Mirror
from service.tracking.mlflow import MlflowTracker
from service.tracking.tracker import Batch, Metric, TrackerAway, TrackerForgot
from tests.api.conftest import TOKEN
from tests.builders import NOW
from tests.integration.serving import RealWorld, serving_api, serving_mlflow
from tests.unit.test_mirror import ENVIRONMENT, World
from tests.unit.test_mirror_control import extend

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def mlflow_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mlflow")


@pytest.fixture(scope="module")
def mlflow_url(mlflow_folder: Path) -> Iterator[str]:
    [port] = free_ports(1)
    with serving_mlflow(mlflow_folder, port):
        yield server.url(port)


@pytest.fixture
def world(mlflow_url: str) -> Iterator[RealWorld]:
    world = RealWorld(mlflow_url)
    yield world
    world.real.close()


@pytest.fixture
def mlflow(mlflow_url: str) -> MlflowClient:
    return MlflowClient(tracking_uri=mlflow_url, registry_uri=mlflow_url)


def test_mlflows_own_client_reads_what_the_mirror_wrote(world: RealWorld, mlflow: MlflowClient) -> None:
    study = world.has_study("mirrored-abc123")
    for number, accuracies in enumerate([[0.5, 0.7], [0.6, 0.9], [0.4]]):
        world.starts(study, number)
        world.reports(study, number, accuracies)
    world.mirror.sync_once()
    world.ends(study, 0)
    world.ends(study, 1)
    world.ends(study, 2, TrialReason.RUNG_CUT)
    world.exports.trials = {1}
    world.finishes(study)
    world.mirror.sync_once()

    experiment = mlflow.get_experiment_by_name(study.id)
    assert experiment is not None
    assert experiment.tags["tuneyard.study"] == study.id
    runs = {run.info.run_name: run for run in mlflow.search_runs([experiment.experiment_id])}
    assert sorted(runs) == ["intents", "trial-0000", "trial-0001", "trial-0002"]
    parent, best = runs["intents"], runs["trial-0001"]
    assert {run.data.tags["mlflow.parentRunId"] for name, run in runs.items() if name != "intents"} == {parent.info.run_id}
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    assert runs["trial-0002"].data.tags["tuneyard.state"] == "pruned"
    history = mlflow.get_metric_history(best.info.run_id, "validation/accuracy")
    assert [(point.step, point.value, point.timestamp) for point in history] == [
        (number, value, int((NOW + timedelta(seconds=10 * number)).timestamp() * 1000))
        for number, value in enumerate([0.6, 0.9], start=1)
    ]
    assert best.data.params["learning_rate"] == "0.001"
    version = mlflow.get_model_version_by_alias(study.id, "champion")
    assert (version.run_id, version.source) == (best.info.run_id, f"runs:/{best.info.run_id}/model")
    assert sorted(file.path for file in mlflow.list_artifacts(best.info.run_id, "model")) == [
        "model/config.json",
        "model/model.safetensors",
    ]


def test_a_champion_that_has_become_better_is_a_second_version(world: RealWorld, mlflow: MlflowClient) -> None:
    study = world.has_study("better-abc123")
    world.starts(study)
    world.reports(study, 0, [0.5])
    world.ends(study, 0, TrialReason.BUDGET_SPENT)
    world.exports.trials = {0}
    world.finishes(study)
    world.mirror.sync_once()
    extend(world, world.store.studies.get(study.id))
    world.store.trials.record("driver", [Change(world.store.trials.get(study.id, 0).started(NOW))])
    world.reports(study, 0, [0.9])
    world.ends(study, 0)
    world.finishes(study)
    world.mirror.sync_once()
    version = mlflow.get_model_version_by_alias(study.id, "champion")
    assert (str(version.version), version.tags["tuneyard.report"]) == ("2", "2")
    assert world.real.champion(study.id) == (version.run_id, 2)


def test_mirroring_again_after_losing_all_memory_doubles_nothing(world: RealWorld, mlflow: MlflowClient) -> None:
    study = world.has_study("again-abc123")
    world.starts(study)
    world.reports(study, 0, [0.5, 0.6])
    world.ends(study, 0, TrialReason.CANCEL_REQUESTED)
    world.exports.trials = {0}
    world.finishes(study, StudyReason.CANCEL_REQUESTED)
    world.mirror.sync_once()
    for run_id in [entry.run_id for entry in world.store.mirror.mirrored(study.id).values()]:
        assert mlflow.get_run(run_id).info.status == "KILLED"

    world.mirror._anew.add(study.id)
    world.mirror._whole.clear()
    world.mirror._sync(study.id, is_whole=False)

    experiment_id = world.store.mirror.experiment(study.id)
    assert experiment_id is not None
    runs = mlflow.search_runs([experiment_id])
    assert len(runs) == 2
    assert len(mlflow.get_metric_history(world.store.mirror.mirrored(study.id)[0].run_id, "validation/accuracy")) == 2
    assert len(mlflow.search_model_versions(f"name='{study.id}'")) == 1


def test_a_run_that_stands_as_running_though_its_trial_has_ended_is_ended(world: RealWorld, mlflow: MlflowClient) -> None:
    study = world.has_study("running-abc123")
    for number in range(2):
        world.starts(study, number)
        world.reports(study, number, [0.5])
    world.ends(study, 0)
    world.mirror.sync_once()
    run_id = world.store.mirror.mirrored(study.id)[0].run_id
    mlflow.update_run(run_id, status="RUNNING")
    assert {number for study_id, number in world.real.running() if study_id == study.id} == {-1, 0, 1}
    Mirror(world.store, world.real, world.exports, ENVIRONMENT, world.clock).sync_once()
    assert {number for study_id, number in world.real.running() if study_id == study.id} == {-1, 1}
    assert mlflow.get_run(run_id).info.status == "FINISHED"


@pytest.mark.parametrize("whole", [False, True], ids=["a-run", "an-experiment"])
def test_what_somebody_deleted_at_the_server_is_caught_up_with(world: RealWorld, mlflow: MlflowClient, *, whole: bool) -> None:
    study = world.has_study("bereft-abc123" if whole else "robbed-abc123")
    for number in range(2):
        world.starts(study, number)
        world.reports(study, number, [0.5])
    world.mirror.sync_once()
    experiment_id = world.store.mirror.experiment(study.id)
    assert experiment_id is not None
    before = world.store.mirror.mirrored(study.id)[0].run_id
    if whole:
        mlflow.delete_experiment(experiment_id)
    else:
        mlflow.delete_run(before)
    world.reports(study, 0, [0.6])
    world.mirror.sync_once()
    world.clock.pass_seconds(2)
    world.mirror.sync_once()
    assert study.id not in world.store.mirror.behind()
    assert mlflow.get_experiment(experiment_id).lifecycle_stage == "active"
    assert len(mlflow.search_runs([experiment_id])) == 3
    now = world.store.mirror.mirrored(study.id)[0].run_id
    assert (now == before) == whole, "a restored experiment has its runs, and another run is not restored"
    assert [point.value for point in mlflow.get_metric_history(now, "validation/accuracy")] == [0.5, 0.6]


class KillingTransport(httpx.HTTPTransport):
    """Kills the server once so many batches have arrived, before their sender hears of the last one."""

    def __init__(self, batches: int, kill: Callable[[], None]) -> None:
        super().__init__()
        self._left = batches
        self._kill = kill

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        response = super().handle_request(request)
        if request.url.path.endswith("runs/log-batch"):
            self._left -= 1
            if self._left == 0:
                response.read()
                self._kill()
                raise httpx.ReadError("connection reset by peer", request=request)
        return response


def test_a_server_that_was_killed_between_two_batches_gets_the_rest_in_order_and_nothing_twice(tmp_path: Path) -> None:
    [port], count = free_ports(1), 900
    world = World()
    study = world.has_study("killed-abc123")
    world.starts(study)
    world.reports(study, 0, [number / count for number in range(count)])
    with serving_mlflow(tmp_path, port) as process:

        def kill() -> None:
            process.kill()
            process.wait()

        tracker = MlflowTracker(
            server.url(port), KillingTransport(4, kill)
        )  # one of the study's run, and some of its trial's four
        mirror = Mirror(world.store, tracker, world.exports, ENVIRONMENT, world.clock)
        mirror.sync_once()
        assert process.poll() is not None
        assert world.store.mirror.mirrored(study.id)[0].reports == 0
    world.reports(study, 0, [1.0])
    with serving_mlflow(tmp_path, port):
        world.clock.pass_seconds(60)
        mirror.sync_once()
        client = MlflowClient(tracking_uri=server.url(port))
        run_id = world.store.mirror.mirrored(study.id)[0].run_id
        found = client.get_metric_history(run_id, "validation/accuracy")
        assert [point.step for point in found] == list(range(1, count + 2))
        assert found[-1].value == 1.0
        experiment_id = world.store.mirror.experiment(study.id)
        assert experiment_id is not None
        assert len(client.search_runs([experiment_id])) == 2
    tracker.close()


def test_a_deleted_studys_experiment_and_model_are_gone_and_all_files_of_its_runs(
    world: RealWorld, mlflow: MlflowClient, mlflow_folder: Path
) -> None:
    study = world.has_study("deleted-abc123")
    world.starts(study)
    world.reports(study, 0, [0.5])
    world.ends(study, 0)
    world.exports.trials = {0}
    world.finishes(study)
    world.mirror.sync_once()
    run_id = world.store.mirror.mirrored(study.id)[0].run_id
    assert mlflow.get_model_version_by_alias(study.id, "champion").run_id == run_id
    for owner in (run_id, world.store.mirror.mirrored(study.id)[-1].run_id):
        mlflow.log_text(owner, "a note of a user's", "notes/note.txt")
    folder = mlflow_folder / "artifacts" / str(world.store.mirror.experiment(study.id))
    others = {path.name for path in folder.parent.iterdir()} - {folder.name}
    assert len([path for path in folder.rglob("*") if path.is_file()]) > 2
    world.store.studies.delete(study.id)
    world.mirror.forget(study.id)
    assert {path.name for path in folder.parent.iterdir()} == others
    assert world.store.deletions.recent()[0].forgotten == Forgotten(folder.name, runs=2, registered_model=True)
    assert study.id not in world.real.experiments()
    with pytest.raises(MlflowException, match="not found"):
        mlflow.get_registered_model(study.id)
    assert mlflow.list_artifacts(run_id, "model") == []


def test_numbers_that_are_none_and_more_of_them_than_one_batch_takes_arrive(world: RealWorld, mlflow: MlflowClient) -> None:
    study = world.has_study("many-abc123")
    world.mirror.sync_once()
    run_id = world.store.mirror.mirrored(study.id)[-1].run_id
    points = [Metric("loss", float(step), step, NOW) for step in range(1, 2001)]
    odd = [Metric("odd", float("nan"), 1, NOW), Metric("odd", float("inf"), 2, NOW)]
    params = {f"p{number}": "1" for number in range(250)}
    world.real.log(run_id, Batch(params=params, tags={"a": "b"}, metrics=[*points, *odd]))
    assert len(mlflow.get_metric_history(run_id, "loss")) == 2000
    assert {point.step for point in mlflow.get_metric_history(run_id, "odd")} == {1, 2}
    run = mlflow.get_run(run_id)
    assert (len([key for key in run.data.params if key.removeprefix("p").isdigit()]), run.data.tags["a"]) == (250, "b")


def test_a_missing_run_and_a_missing_server_are_told_apart(world: RealWorld) -> None:
    with pytest.raises(TrackerForgot):
        world.real.log("0" * 32, Batch(tags={"a": "b"}))
    with pytest.raises(TrackerAway):
        MlflowTracker(server.url(*free_ports(1))).experiments()


@pytest.fixture
def gateway(mlflow_url: str, tmp_path: Path) -> Iterator[str]:
    """The API's address, in front of the real server."""
    with serving_api(memory_store(), mlflow_url, tmp_path) as url:
        yield url


def test_a_reading_client_works_through_the_gateway_and_a_writing_one_does_not(
    world: RealWorld, gateway: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    study = world.has_study("gateway-abc123")
    world.starts(study)
    world.reports(study, 0, [0.5])
    world.ends(study, 0)
    world.exports.trials = {0}
    world.finishes(study)
    world.mirror.sync_once()
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", TOKEN)
    client = MlflowClient(tracking_uri=f"{gateway}/mlflow", registry_uri=f"{gateway}/mlflow")
    experiment = client.get_experiment_by_name(study.id)
    assert experiment is not None
    child = next(run for run in client.search_runs([experiment.experiment_id]) if run.info.run_name == "trial-0000")
    assert [point.value for point in client.get_metric_history(child.info.run_id, "validation/accuracy")] == [0.5]
    assert client.search_registered_models(f"name='{study.id}'")[0].aliases == {"champion": "1"}
    downloaded = client.download_artifacts(child.info.run_id, "model/config.json", str(tmp_path))
    assert Path(downloaded).read_bytes() == b"{}"
    with pytest.raises(MlflowException, match="read here"):
        client.set_tag(child.info.run_id, "a", "b")
    with pytest.raises(MlflowException, match="read here"):
        client.delete_experiment(experiment.experiment_id)


def test_the_uis_page_scripts_and_queries_come_through_the_gateway(world: RealWorld, gateway: str) -> None:
    study = world.has_study("ui-abc123")
    world.mirror.sync_once()
    experiment_id = world.store.mirror.experiment(study.id)
    with httpx.Client(base_url=gateway, headers={"Authorization": f"Bearer {TOKEN}"}, trust_env=False, timeout=60) as ui:
        page = ui.get("/mlflow/")
        assert "frame-ancestors 'self'" in page.headers["content-security-policy"]
        script = page.text.partition('src="static-files/static/js/')[2].partition('"')[0]
        answer = ui.get(f"/mlflow/static-files/static/js/{script}")
        assert answer.status_code == 200
        assert "max-age" in answer.headers["cache-control"]
        assert (
            ui.get(f"/mlflow/static-files/static/js/{script}", headers={"If-None-Match": answer.headers["etag"]}).status_code
            == 304
        )
        query = "query Q($input: MlflowGetExperimentInput!) { mlflowGetExperiment(input: $input) { experiment { name } } }"
        body = {"query": query, "variables": {"input": {"experimentId": experiment_id}}, "operationName": "Q"}
        found = ui.post("/mlflow/graphql", json=body).json()
        assert found["data"]["mlflowGetExperiment"]["experiment"]["name"] == study.id
    assert httpx.get(f"{gateway}/mlflow/", trust_env=False, timeout=60).status_code == 401


def test_what_a_version_before_projects_wrote_is_tagged_with_whose_it_is(world: RealWorld, mlflow: MlflowClient) -> None:
    study = world.has_study("untagged-abc123")
    bare = world.has_study("modelless-abc123")
    world.starts(study)
    world.reports(study, 0, [0.5])
    world.ends(study, 0)
    world.exports.trials = {0}
    world.finishes(study)
    world.mirror.sync_once()
    experiments = {one: world.store.mirror.experiment(one) or "" for one in (study.id, bare.id)}
    for experiment_id in experiments.values():
        mlflow.delete_experiment_tag(experiment_id, PROJECT_TAG)
    mlflow.delete_registered_model_tag(study.id, PROJECT_TAG)
    mlflow.delete_model_version_tag(study.id, "1", PROJECT_TAG)
    assert {name: found for name, found in world.real.unowned().items() if name in experiments} == experiments
    Mirror(world.store, world.real, world.exports, ENVIRONMENT, world.clock).sync_once()
    assert not set(experiments) & set(world.real.unowned())
    assert {mlflow.get_experiment(one).tags[PROJECT_TAG] for one in experiments.values()} == {"default"}
    assert mlflow.get_registered_model(study.id).tags[PROJECT_TAG] == "default"
    assert mlflow.get_model_version(study.id, "1").tags[PROJECT_TAG] == "default"
