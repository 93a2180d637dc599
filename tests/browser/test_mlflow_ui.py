"""What a person sees: the login link, the study's page in the MLflow UI, a trial's curve; and what a stranger sees."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

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
_PATIENCE = 30_000
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
    wait_until(lambda: client.mlflow_address(client.study(ended.id)), 60, "MLflow does not know the study")
    return client.study(ended.id)


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
