"""A real JupyterLab of its own and a real browser, for test_browser.py: start, open, run, read back from the kernel."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import pytest
from jupyter_client import BlockingKernelClient

try:
    from playwright.sync_api import expect, sync_playwright
except ImportError:  # the tests skip, see `need_browser`
    expect = sync_playwright = None

ROOT = Path(__file__).resolve().parent.parent
CHROMIUM = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), "")
PATIENCE = 60_000  # ms; waits end as soon as what they wait for is there
TOKEN = "course"
SETTINGS = {
    "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False},  # would cover cells
    "@jupyterlab/notebook-extension:tracker": {"windowingMode": "none"},  # all cells are in the page
}


def need_browser() -> None:
    """Skip the test without a browser; fail it where PULIB_REQUIRE_BROWSER is set, as in CI."""
    reason = ""
    if sync_playwright is None:
        reason = "playwright is not installed: pip install -e '.[test]'"
    elif not shutil.which(CHROMIUM):
        reason = f"no Chromium ({CHROMIUM or 'not on PATH'}): apt-get install chromium, or set CHROMIUM to its path"
    if reason and os.environ.get("PULIB_REQUIRE_BROWSER"):
        pytest.fail(reason, pytrace=False)
    if reason:
        pytest.skip(reason)


class Lab:
    """A JupyterLab server that serves the notebooks in `self.root` and shares no settings with the user's own."""

    def __init__(self, home: Path) -> None:
        self.root, self.runtime, self.log = home / "root", home / "runtime", home / "lab.log"
        settings = home / "config" / "labconfig" / "default_setting_overrides.json"
        for folder in (self.root, settings.parent):
            folder.mkdir(parents=True)
        settings.write_text(json.dumps(SETTINGS))
        folders = {name: str(home / name) for name in ("config", "data", "runtime", "settings", "workspaces", "ipython", "build")}
        env = dict(
            os.environ,
            JUPYTER_CONFIG_DIR=folders["config"],
            JUPYTER_DATA_DIR=folders["data"],
            JUPYTER_RUNTIME_DIR=folders["runtime"],
            JUPYTERLAB_SETTINGS_DIR=folders["settings"],
            JUPYTERLAB_WORKSPACES_DIR=folders["workspaces"],
            IPYTHONDIR=folders["ipython"],
            PULIB_BUILD=folders["build"],
            OMP_NUM_THREADS="1",  # threads that wait for each other are many times slower on a busy machine
            PYTHONPATH=os.pathsep.join([str(ROOT), str(ROOT / "tests" / "offline")]),  # this pulib, and no network
        )
        options = ["--no-browser", "--allow-root", "--ip=127.0.0.1", "--ServerApp.port=0", f"--IdentityProvider.token={TOKEN}"]
        options += [f"--ServerApp.root_dir={self.root}", "--LabApp.extension_manager=readonly"]
        options += ["--MappingKernelManager.cull_idle_timeout=900", "--ServerApp.shutdown_no_activity_timeout=900"]  # should a killed test leave it behind
        with self.log.open("w") as log:
            self.process = subprocess.Popen([sys.executable, "-m", "jupyterlab", *options], env=env, stdout=log, stderr=log)
        try:
            self.url = until(self._url, "JupyterLab to start", failed=self._end)
            until(self._answers, "JupyterLab to answer", failed=self._end)
        except BaseException:
            self.stop()
            raise

    def _end(self) -> str:
        return "" if self.process.poll() is None else f"it ended: {self.log.read_text()}"

    def _url(self) -> str:
        files = list(self.runtime.glob("jpserver-*.json"))
        text = files[0].read_text() if files else ""
        return json.loads(text)["url"] if text.rstrip().endswith("}") else ""

    def _answers(self) -> bool:
        try:
            return bool(self.api("status"))
        except OSError:  # it writes down its address before it listens there
            return False

    def api(self, what: str, method: str = "GET"):
        request = urllib.request.Request(f"{self.url}api/{what}?token={TOKEN}", method=method)
        with urllib.request.urlopen(request, timeout=PATIENCE / 1000) as answer:
            return json.loads(answer.read() or "null")

    def serve(self, name: str, notebook: nbformat.NotebookNode) -> str:
        nbformat.write(notebook, self.root / name)
        return name

    def stop(self) -> None:
        self.process.terminate()  # stops its kernels, too
        self.process.wait(PATIENCE / 1000)


def until(read, what: str, seconds: float = PATIENCE / 1000, failed=lambda: "", pause: float = 0.05):
    """Ask `read`, with a pause of some seconds between, until it gives something true, and return that."""
    end = time.monotonic() + seconds
    while not (found := read()):
        assert not (problem := failed()), f"while waiting for {what}: {problem}"
        assert time.monotonic() < end, f"waited {seconds:g} s for {what}"
        time.sleep(pause)
    return found


class Kernel:
    """The kernel behind a page, asked past the page; in a thread, because Playwright occupies this one's event loop."""

    def __init__(self, connection_file: Path) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._client = self._thread.submit(self._connect, connection_file).result()

    @staticmethod
    def _connect(connection_file: Path) -> BlockingKernelClient:
        client = BlockingKernelClient(connection_file=str(connection_file))
        client.load_connection_file()
        client.start_channels()
        client.wait_for_ready(timeout=60)
        return client

    def ask(self, expression: str, first: str = ""):
        """The value, a Python literal, of an expression in the kernel, after running the code `first`."""

        def execute() -> dict:
            options = dict(silent=True, store_history=False, user_expressions={"it": expression}, timeout=PATIENCE / 1000)
            return self._client.execute_interactive(first, output_hook=lambda message: None, **options)["content"]

        content = self._thread.submit(execute).result()
        answer = content.get("user_expressions", {}).get("it", content)
        assert answer["status"] == "ok", f"{expression}: {answer.get('ename')}: {answer.get('evalue')}"
        return ast.literal_eval(answer["data"]["text/plain"])

    def close(self) -> None:
        self._thread.submit(self._client.stop_channels).result()
        self._thread.shutdown()


class Page:
    """A served notebook in a browser: `run_all`, `cell`, and what went wrong so far in `problems`."""

    def __init__(self, lab: Lab, browser, name: str) -> None:
        self.lab, self.problems, self.kernel = lab, [], None
        self.cells = nbformat.read(lab.root / name, as_version=4).cells
        self.tab = browser.new_page(viewport={"width": 1280, "height": 900})
        self.tab.on("console", lambda message: message.type == "error" and self.problems.append(f"console: {message.text} {message.location}"))
        self.tab.on("pageerror", lambda error: self.problems.append(f"page: {error}"))
        self.tab.on("request", lambda request: self._is_local(request.url) or self.problems.append(f"network: {request.url}"))
        self.tab.goto(f"{lab.url}lab/tree/{name}?token={TOKEN}&reset", timeout=PATIENCE)
        self.notebook = self.tab.locator("css:light=.jp-NotebookPanel:not(.lm-mod-hidden)")  # light: else all elements of a page are looked through for shadow roots, each time
        # the notebook's own indicator is idle for a moment without a kernel, and what is run then is dropped
        expect(self.tab.locator("#jp-main-statusbar")).to_contain_text(re.compile(r"\(ipykernel\) \| Idle"), timeout=PATIENCE)
        expect(self.notebook.locator(".jp-Cell")).to_have_count(len(self.cells), timeout=PATIENCE)
        session = next(s for s in lab.api("sessions") if s["path"] == name)
        self._session = f"sessions/{session['id']}"
        self.kernel = Kernel(lab.runtime / f"kernel-{session['kernel']['id']}.json")

    def _is_local(self, url: str) -> bool:
        return url.startswith((self.lab.url, self.lab.url.replace("http", "ws", 1), "data:", "blob:"))

    def cell(self, index: int):
        return self.notebook.locator("css:light=.jp-Cell").nth(index)

    def run_all(self, seconds: float) -> None:
        """Run all cells and see that each came to its end without an error."""
        self.tab.get_by_role("menuitem", name="Run", exact=True).click()
        self.tab.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        last = self.notebook.locator("css:light=.jp-CodeCell .jp-InputPrompt").last  # stays empty when an earlier cell failed
        error = self.notebook.locator("css:light=.jp-OutputArea-output", has_text="Traceback (most recent call last)")
        until(
            lambda: re.search(r"\[\d+\]", last.text_content()),
            "the last cell to end",
            seconds,
            failed=lambda: error.count() and error.first.inner_text(),
            pause=1,  # looking takes the browser as much time as a cell takes the kernel
        )
        self.see_no_problem()

    def see_no_problem(self) -> None:
        for words in ("Traceback (most recent call last)", "Error displaying widget", "Click to show javascript error"):
            assert not self.notebook.locator("css:light=.jp-OutputArea-output", has_text=words).count(), words
        assert not self.problems, "\n".join(self.problems)

    def close(self) -> None:
        if self.kernel:
            self.kernel.close()
            self.lab.api(self._session, "DELETE")
        self.tab.close()
