"""Notebook 00 in JupyterLab, in a real browser: run all its cells, and see sound, pictures and the control work."""

import contextlib
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import nbformat
import pytest

from lasslab.data.corpora import data_root

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "00_start_here.ipynb"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER = next((path for path in map(shutil.which, NAMES) if path), None)

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason=f"no browser found ({', '.join(NAMES)}): apt-get install chromium"),
]

SETTINGS = {
    "notebook-extension/tracker": {"windowingMode": "none"},  # else cells out of sight are not on the page at all
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Address of a JupyterLab on a copy of the notebook without its outputs; it sees none of the user's settings."""
    folder = tmp_path_factory.mktemp("lab")
    notebook = nbformat.read(NOTEBOOK, 4)
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    (folder / "course").mkdir()
    nbformat.write(notebook, folder / "course" / NOTEBOOK.name)
    for plugin, values in SETTINGS.items():
        file = folder / "settings" / "@jupyterlab" / f"{plugin}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values), encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    places = {f"JUPYTER_{kind}_DIR": str(folder / kind.lower()) for kind in ("CONFIG", "DATA", "RUNTIME")}
    places |= {"JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"), "LASSLAB_DATA": str(data_root().resolve())}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1"]
    command += [f"--ServerApp.port={port}", "--ServerApp.port_retries=0", f"--IdentityProvider.token={token}"]
    command += [f"--ServerApp.root_dir={folder / 'course'}"]
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=os.environ | places, cwd=folder, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        _wait_for(f"http://127.0.0.1:{port}/api?token={token}", process, log)
        yield f"http://127.0.0.1:{port}/lab/tree/{NOTEBOOK.name}?token={token}"
    finally:
        process.terminate()  # stops the kernels too
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for(address: str, process: subprocess.Popen, log: Path, *, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError):
            urllib.request.urlopen(address, timeout=2).close()
            return
        time.sleep(0.2)
    pytest.fail(f"JupyterLab did not answer within {seconds:.0f} s:\n{log.read_text(errors='replace')[-2000:]}")


@pytest.fixture(scope="module")
def page(server):
    """The notebook's page after *Run All Cells*."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is missing: pip install playwright")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--mute-audio"])
        page = browser.new_page(viewport={"width": 1300, "height": 900})
        page.set_default_timeout(30_000)
        page.goto(server)
        page.locator("#jp-main-statusbar").get_by_text("| Idle").wait_for()  # a run asked for earlier would be lost
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.locator(".lm-Menu-itemLabel", has_text=re.compile("^Run All Cells$")).click()
        page.wait_for_function(
            """() => {
                const prompts = [...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].map(p => p.innerText);
                return prompts.length && prompts.every(prompt => /\\[\\d+\\]/.test(prompt));
            }""",
            timeout=100_000,
        )
        yield page
        browser.close()


def test_every_cell_ran_without_an_error(page):
    errors = page.locator("[data-mime-type='application/vnd.jupyter.error'], [data-mime-type$='stderr']")
    assert errors.all_inner_texts() == []
    verdicts = page.locator(".jp-OutputArea-output b", has_text=re.compile("^(Correct|Not yet|Not done yet)$"))
    assert verdicts.all_inner_texts() == ["Correct", "Correct"]


def test_every_player_holds_sound(page):
    page.wait_for_function("() => [...document.querySelectorAll('audio')].every(player => player.duration > 0)")
    durations = page.eval_on_selector_all("audio", "players => players.map(player => player.duration)")
    assert len(durations) >= 8
    assert all(0.5 < duration < 5.5 for duration in durations)
    assert page.eval_on_selector_all("audio", "players => players.every(player => player.error === null)")


def test_every_picture_is_drawn_and_described(page):
    pictures = page.eval_on_selector_all(
        ".jp-OutputArea-output img", "all => all.map(i => [i.naturalWidth, i.getBoundingClientRect().width, i.alt])"
    )
    assert len(pictures) >= 4
    assert all(natural > 300 and shown > 300 and len(alt) > 30 for natural, shown, alt in pictures)


def test_the_control_answers_a_typed_query_a_chosen_one_and_nonsense(page):
    control = page.locator(".lasslab-ask")
    box, status = control.locator("input[type=text]"), control.locator(".widget-html").first
    box.fill("rain falling")
    box.press("Enter")
    player = control.locator("audio[aria-label='“rain falling”']")
    player.wait_for()
    page.wait_for_function("player => player.duration > 0", arg=player.element_handle())
    assert control.locator("img[alt*='“rain falling”']").evaluate("picture => picture.naturalWidth") > 300
    status.get_by_text("Level").wait_for()  # written after the player
    assert re.search(r"Level -\d+\.\d dB .* dB to the rooster, .* dB to the rain", status.inner_text())

    control.locator("select").select_option("everything but the rooster")
    control.locator("audio[aria-label='“everything but the rooster”']").wait_for()
    assert box.input_value() == "everything but the rooster"

    box.fill("?!")
    box.press("Enter")
    control.get_by_text("the query is empty").wait_for()
    assert "Not possible:" in status.inner_text() and "\n" not in status.inner_text()
    assert control.locator("audio").count() == 0
