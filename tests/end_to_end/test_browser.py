"""What a chemist does in a browser: fills the form, sees a bad value refused, finds the version."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from groundwork_up import RUN_PATIENCE, Groundwork

playwright = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser")

pytestmark = [pytest.mark.slow, pytest.mark.browser]

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-software-rasterizer",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
NAME = "from-the-browser"
PATIENCE = 60_000
"""Milliseconds for a page of a busy server."""
SCREENSHOTS = os.environ.get("GROUNDWORK_SCREENSHOTS")
"""Folder that receives pictures of what was seen, for people to look at."""


@pytest.fixture(scope="module")
def page() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on this machine")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        page = browser.new_page(viewport={"width": 1400, "height": 1000}, reduced_motion="reduce")
        page.set_default_timeout(PATIENCE)
        yield page
        browser.close()


@pytest.fixture
def form(page: Any, running: Groundwork, table: str) -> Any:
    """The form of a custom run of finetune-molecules, found as one finds it."""
    (running.home.inbox / "measured.csv").write_text(table)
    page.goto(f"{running.addresses.prefect_url}/deployments")
    page.get_by_role("link", name="finetune-molecules").first.click()
    page.get_by_role("button", name="Run", exact=True).click()
    page.get_by_text("Custom run").click()
    field(page, "epochs").wait_for()
    return page


def field(page: Any, name: str) -> Any:
    """One field of the form, with its label and description."""
    label = page.get_by_text(re.compile(rf"^{name}( \(Optional\))?$"))
    return page.locator(".schema-form-property").filter(has=label).last


def fill(form: Any, epochs: int) -> None:
    field(form, "dataset").get_by_role("textbox").fill("measured.csv")
    field(form, "target").get_by_role("button", name="Add item").click()
    field(form, "target").get_by_role("textbox").fill("logp")
    field(form, "foundation").get_by_role("textbox").fill("none")
    field(form, "name").get_by_role("textbox").fill(NAME)
    field(form, "epochs").get_by_role("spinbutton").fill(str(epochs))


def open_run(page: Any, called: str) -> None:
    """Follow the link to a run that was just asked for; ask again where a busy server has not taken it."""
    link = page.get_by_role("link", name=called).first
    try:
        link.wait_for()
    except playwright.TimeoutError:
        photograph(page, "no-run")
        page.get_by_role("button", name="Submit").or_(page.get_by_role("link", name="Runs")).first.click()
    link.click()
    page.wait_for_url("**/runs/flow-run/*")


def photograph(page: Any, name: str) -> None:
    if SCREENSHOTS:
        page.screenshot(path=Path(SCREENSHOTS) / f"{name}.png")


def test_the_form_explains_itself(form: Any) -> None:
    photograph(form, "form")
    assert "inbox" in field(form, "dataset").inner_text()
    assert field(form, "epochs").get_by_role("spinbutton").input_value() == "0"
    assert "Passes over the training rows" in field(form, "epochs").inner_text()
    # A choice is a choice, not a text.
    assert field(form, "split").get_by_role("button", name="scaffold").is_visible()


def test_a_value_out_of_range_is_refused_with_its_field(form: Any, running: Groundwork) -> None:
    before = running.prefect.post("flow_runs/count", json={}).json()
    fill(form, epochs=-1)
    form.get_by_role("button", name="Submit").click()
    form.get_by_text(re.compile("field 'epochs'.*minimum of 0")).first.wait_for()
    photograph(form, "refused")
    assert running.prefect.post("flow_runs/count", json={}).json() == before


def test_a_filled_form_ends_as_a_version_in_mlflow(form: Any, running: Groundwork) -> None:
    fill(form, epochs=2)
    photograph(form, "filled")
    called = form.get_by_role("textbox").first.input_value()
    form.get_by_role("button", name="Submit").click()
    open_run(form, called)
    flow_run = form.url.partition("?")[0].rpartition("/")[2]
    form.get_by_text("Completed", exact=True).first.wait_for(timeout=1000 * RUN_PATIENCE)
    form.get_by_text("Artifacts", exact=True).last.click()
    form.get_by_text(f"{NAME}/1 (champion)").first.wait_for()
    photograph(form, "run")
    look_at_artifacts(form)
    look_at_mlflow(form, running, flow_run)


def look_at_artifacts(page: Any) -> None:
    """Table and figure, by their cards on the page of the run."""
    run = page.url
    page.get_by_role("link", name=re.compile("^table result")).click()
    page.get_by_text(f"{NAME}/1", exact=True).wait_for()
    assert page.get_by_text("ECFP4 + random forest", exact=True).is_visible()
    photograph(page, "table")
    page.goto(run)
    page.get_by_text("Artifacts", exact=True).last.click()
    page.get_by_role("link", name=re.compile("^image figure")).click()
    figure = page.locator("img[src*='result.png']")
    figure.wait_for()
    page.wait_for_function("image => image.complete", arg=figure.element_handle())
    assert figure.evaluate("image => image.naturalWidth") > 100
    photograph(page, "figure")


def look_at_mlflow(page: Any, running: Groundwork, flow_run: str) -> None:
    """From the list of models to the version and its run."""
    page.goto(f"{running.addresses.mlflow_url}/#/models")
    page.get_by_role("link", name=NAME).first.wait_for()
    # MLflow greets whom it does not know with a dialog over the page.
    page.get_by_role("dialog").get_by_role("button", name="Close").click()
    photograph(page, "models")
    page.get_by_role("link", name=NAME).first.click()
    page.get_by_role("link", name="Version 1").first.click()
    page.wait_for_url("**/versions/1")
    beats = running.mlflow.get_model_version(NAME, "1").tags["beats_floor"]
    tags = {"beats_floor": beats, "flow_run_id": flow_run, "foundation": "none", "dataset": "measured.csv"}
    for name, value in tags.items():
        page.get_by_role("row", name=f"{name} {value}", exact=True).wait_for()
    photograph(page, "version")
    run = running.mlflow_run(flow_run)
    assert run.data.params["epochs"] == "2"
    page.goto(f"{running.addresses.mlflow_url}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}")
    back = page.locator(f"a[href$='/flow-run/{flow_run}']").first
    back.wait_for()
    photograph(page, "mlflow-run")
    page.goto(back.get_attribute("href"))
    page.wait_for_url(f"**/runs/flow-run/{flow_run}*")
    page.get_by_text("Completed", exact=True).first.wait_for()
