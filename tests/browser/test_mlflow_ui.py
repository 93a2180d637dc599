"""What a person sees: the login link, the study's page in the MLflow UI, a trial's curve; and what a stranger sees."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from service.api.schemas import StudyView
from service.client import Client
from tests.integration.test_four_strategies import a_study
from tests.running import RunningService, wait_until

pytestmark = [pytest.mark.browser, pytest.mark.timeout(400)]

_ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_SCREENSHOTS = Path(__file__).resolve().parents[2] / "out"
_PATIENCE = 60_000
"""Milliseconds: the UI's scripts weigh megabytes."""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    running = RunningService(tmp_path_factory.mktemp("browser"))
    try:
        yield running.start()
    finally:
        running.stop()


@pytest.fixture(scope="module")
def client(service: RunningService) -> Iterator[Client]:
    with service.client() as client:
        yield client


@pytest.fixture(scope="module")
def study(service: RunningService, client: Client) -> StudyView:
    """A study that has run, and that MLflow knows to its end."""
    for path in sorted(service.rows.glob("*.csv")):
        client.upload("intents", path)
    document = a_study(service, name="browsed", strategy={"kind": "random"}, budget={"trials": 3})
    document["trainer"]["epochs"] = 4
    ended = client.wait(client.apply(document).id, timeout=200)
    wait_until(lambda: client.mlflow_address(client.study(ended.id)), 120, "MLflow does not know the study")
    return client.study(ended.id)


@pytest.fixture(scope="module")
def member(service: RunningService, client: Client) -> Iterator[Client]:
    """An editor of a project of their own, which `study` is not in."""
    with service.http() as operator:
        operator.post("/v1/projects", json={"name": "vision"}).raise_for_status()
        made = operator.post("/v1/tokens", json={"name": "ada", "role": "editor", "project": "vision"}).raise_for_status()
    with Client(service.url, made.json()["token"]) as member:
        yield member


@pytest.fixture(scope="module")
def own_study(service: RunningService, member: Client, study: StudyView) -> StudyView:
    """A study of the member's that has run, after the other one."""
    for path in sorted(service.rows.glob("*.csv")):
        member.upload("intents", path)
    document = a_study(service, name="members-own", strategy={"kind": "random"}, budget={"trials": 1})
    ended = member.wait(member.apply(document).id, timeout=200)
    assert ended.id != study.id
    wait_until(lambda: is_whole(service, ended.id), 120, "MLflow does not have the study's model and analysis")
    return member.study(ended.id)


def is_whole(service: RunningService, study_id: str) -> bool:
    """Whether MLflow has the study's model, and the analysis of its trial."""
    headers = {"Authorization": f"Bearer {service.token}"}
    with httpx.Client(base_url=f"{service.url}/mlflow/api/2.0/mlflow/", headers=headers, trust_env=False, timeout=60) as mlflow:
        found = mlflow.get("registered-models/alias", params={"name": study_id, "alias": "champion"})
        if not found.is_success:
            return False
        files = mlflow.get("artifacts/list", params={"run_id": found.json()["model_version"]["run_id"]}).json()["files"]
    return {file["path"] for file in files} == {"analysis", "model"}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert chromium, "Chromium was not found: install it (Debian: apt-get install chromium)"
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=list(_ARGUMENTS))
        yield launched
        launched.close()


@pytest.fixture
def visitor(browser: Browser) -> Iterator[BrowserContext]:
    """A browser that has never been here."""
    context = browser.new_context(viewport={"width": 1500, "height": 950})
    context.set_default_timeout(_PATIENCE)
    yield context
    context.close()


@pytest.fixture
def page(visitor: BrowserContext) -> Page:
    return visitor.new_page()


def logged_in(page: Page, client: Client, study: StudyView) -> None:
    assert study.links.mlflow is not None
    page.goto(client.login_link(study.links.mlflow))


def test_the_login_link_opens_the_studys_page_with_the_parent_and_its_trials(
    page: Page, client: Client, study: StudyView
) -> None:
    logged_in(page, client, study)
    expect(page.get_by_role("link", name="browsed").first).to_be_visible(timeout=_PATIENCE)
    page.get_by_role("row").filter(has_text="browsed").get_by_role("button").first.click()
    for number in range(3):
        expect(page.get_by_text(f"trial-{number:04d}").first).to_be_visible(timeout=_PATIENCE)
    _SCREENSHOTS.mkdir(exist_ok=True)
    page.screenshot(path=_SCREENSHOTS / "mlflow-study.png")


def test_a_trials_curve_is_drawn(page: Page, client: Client, study: StudyView) -> None:
    logged_in(page, client, study)
    page.get_by_role("row").filter(has_text="browsed").get_by_role("button").first.click()
    page.get_by_role("link", name=re.compile("trial-0001")).first.click()
    page.get_by_role("tab", name=re.compile("Model metrics")).click()
    curve = page.locator(".js-plotly-plot .scatterlayer path.js-line").first
    expect(curve).to_be_visible(timeout=_PATIENCE)
    # A straight line, such as that of the epochs, is drawn from its first point to its last.
    page.wait_for_function(
        "Array.from(document.querySelectorAll('.js-plotly-plot .scatterlayer path.js-line'))"
        ".some(line => line.getAttribute('d').split('L').length === 4)"
    )
    _SCREENSHOTS.mkdir(exist_ok=True)
    page.screenshot(path=_SCREENSHOTS / "mlflow-trial.png")


def test_a_stranger_gets_in_nowhere(page: Page, service: RunningService, study: StudyView) -> None:
    assert study.links.mlflow is not None
    for path in (study.links.mlflow, "/mlflow/", "/v1/studies", f"/v1/studies/{study.id}/best/checkpoint"):
        answer = page.goto(service.url + path)
        assert answer is not None
        assert answer.status == 401
        assert "learning_rate" not in page.content()
        assert "trial" not in page.content()


def test_a_login_link_works_once(browser: Browser, client: Client, study: StudyView) -> None:
    link = client.login_link()
    for visit, status in enumerate([200, 403]):
        context = browser.new_context()
        answer = context.new_page().goto(link)
        assert answer is not None
        assert answer.status == status, f"visit {visit + 1}"
        context.close()


def test_a_logged_in_browser_can_only_read(page: Page, client: Client, study: StudyView) -> None:
    logged_in(page, client, study)
    status = page.evaluate(
        """async () => (await fetch('/mlflow/ajax-api/2.0/mlflow/experiments/create', {
            method: 'POST', headers: {'Content-Type': 'application/json'}, body: '{"name": "mine"}'})).status"""
    )
    assert status in {403, 404}


def look_around(page: Page, client: Client, study: StudyView, who: str) -> dict[str, str]:
    """Open what the UI has of a study, from its list of experiments to a file of a run; the pages' texts, and what failed."""
    failed: set[str] = set()
    page.on(
        "response", lambda answer: failed.add(f"{answer.status}:{urlsplit(answer.url).path}") if answer.status >= 400 else None
    )
    page.goto(client.login_link("/mlflow/#/experiments"))
    expect(page.get_by_role("link", name=study.id).first).to_be_visible(timeout=_PATIENCE)
    seen = {"experiments": page.inner_text("body")}
    _SCREENSHOTS.mkdir(exist_ok=True)
    page.screenshot(path=_SCREENSHOTS / f"mlflow-{who}-experiments.png")
    page.goto(f"{page.url.partition('#')[0]}#/models")
    expect(page.get_by_role("link", name=study.id).first).to_be_visible(timeout=_PATIENCE)
    page.get_by_role("button", name="Try it now").click()  # an announcement at everybody's first visit
    seen["models"] = page.inner_text("body")
    page.screenshot(path=_SCREENSHOTS / f"mlflow-{who}-models.png")
    page.get_by_role("link", name=study.id).first.click()
    expect(page.get_by_text(re.compile("Best trial of study")).first).to_be_visible(timeout=_PATIENCE)
    seen["model"] = page.inner_text("body")
    page.screenshot(path=_SCREENSHOTS / f"mlflow-{who}-model.png")
    assert study.links.mlflow is not None
    page.goto(page.url.partition("/mlflow/")[0] + study.links.mlflow)
    page.get_by_role("row").filter(has_text=study.name).get_by_role("button").first.click()
    page.get_by_role("link", name=re.compile("trial-0000")).first.click()
    expect(page.get_by_text("validation/accuracy").first).to_be_visible(timeout=_PATIENCE)
    seen["run"] = page.inner_text("body")
    page.screenshot(path=_SCREENSHOTS / f"mlflow-{who}-run.png")
    page.get_by_role("tab", name=re.compile("Artifacts")).click()
    page.get_by_role("treeitem", name="model").or_(page.get_by_text("model", exact=True)).first.click()
    page.get_by_text("config.json").first.click()
    expect(page.get_by_text("num_hidden_layers").first).to_be_visible(timeout=_PATIENCE)
    seen["artifacts"] = page.inner_text("body")
    page.screenshot(path=_SCREENSHOTS / f"mlflow-{who}-artifacts.png")
    return {**seen, "failed": " ".join(sorted(failed))}


def test_a_member_sees_their_project_as_who_sees_all_sees_it_and_nothing_of_others(
    browser: Browser, client: Client, member: Client, study: StudyView, own_study: StudyView
) -> None:
    def visit(as_whom: Client, who: str) -> dict[str, str]:
        context = browser.new_context(viewport={"width": 1500, "height": 950})
        context.set_default_timeout(_PATIENCE)
        seen = look_around(context.new_page(), as_whom, own_study, who)
        context.close()
        return seen

    everything, own = visit(client, "operator"), visit(member, "member")
    assert study.id in everything["experiments"]
    assert study.id in everything["models"]
    for page in own.values():
        assert study.id not in page
    assert own["failed"] == everything["failed"]
    assert without_toasts(own["model"]) == without_toasts(everything["model"])
    assert without_toasts(own["artifacts"]) == without_toasts(everything["artifacts"])
    for shown in ("validation/f1_macro", "learning_rate", f"{own_study.id}/0", "Finished"):
        assert shown in own["run"]


def without_toasts(text: str) -> str:
    """A page without what the UI says, for some seconds, of its assistant and of users, which are there for nobody."""
    return text.replace("Request Failed", "").strip()


def test_a_members_browser_does_not_find_what_is_anothers(
    page: Page, member: Client, study: StudyView, own_study: StudyView
) -> None:
    assert own_study.links.mlflow != study.links.mlflow
    logged_in(page, member, own_study)
    expect(page.get_by_role("link", name="members-own").first).to_be_visible(timeout=_PATIENCE)
    assert study.links.mlflow is not None
    page.goto(page.url.partition("/mlflow/")[0] + study.links.mlflow)
    expect(page.get_by_text(re.compile("not found|does not exist|No Experiment", re.IGNORECASE)).first).to_be_visible(
        timeout=_PATIENCE
    )
    _SCREENSHOTS.mkdir(exist_ok=True)
    page.screenshot(path=_SCREENSHOTS / "mlflow-not-found.png")
    assert study.id not in page.content()
