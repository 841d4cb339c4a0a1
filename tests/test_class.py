"""What a class does to notebooks: kernels that die while they train, cells run twice or in another order, two notebooks at once, sliders moved meanwhile.

The kernels are real ones. Notebooks that write files are 04 and 08, so those are killed and run beside each other; the others are run
from the last cell to the first, and all are read, cell by cell, for what makes a second run differ (`mutated`, `replaced`). A slider that is moved meanwhile is heard after the cell, as
JupyterLab 4.6 was seen to do, or beside it, in a thread of the kernel: a subshell, which front ends may ask for. Both are tried.
"""

import ast
import hashlib
import json
import os
import re
import signal
import symtable
import time
from io import BytesIO
from pathlib import Path

import ipykernel
import nbformat
import pytest
from jupyter_client.manager import KernelManager
from nbformat.v4 import new_code_cell, new_notebook
from PIL import Image
from reduced import REDUCED, with_parameters

from lab import CHROMIUM, ROOT, Lab, Page, expect, need_browser, sync_playwright, until

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SHORT = REDUCED | {
    "04_pu_diffusion": {"steps": 3, "n_samples": 12},
    "08_scale_up": {"steps": 3, "n_samples": 12, "arms": "unsupervised"},
}
SHORTER = """
import pulib.rivals, pulib.scale, pulib.widgets
pulib.rivals.SAMPLING = dict(pulib.rivals.SAMPLING, steps=3)  # of 04
if "made" not in globals():
    made, _box = [], pulib.widgets._box
    pulib.widgets._box = lambda draw, parts: made.append(_box(draw, parts)) or made[-1]
laptop, pulib.scale.SHORT = pulib.scale.EXPERIMENTS["laptop"], 1  # of 08: checkpoints after every step, as a run that lasts has them
laptop.settings["checkpoint_every"], laptop.drawing["steps"] = 1, 3
"""
QUICK = ["02_pu_risk", "03_negative_elbo"]
LONG = pytest.mark.skipif(not os.environ.get("PULIB_LONG"), reason="four minutes of one core; PULIB_LONG=1, which make test-latest and make test-lowest set, runs it")
SUBSHELLS = pytest.mark.skipif(ipykernel.version_info[0] < 7, reason="ipykernel has subshells from 7 on")
VIEW = "next(part for part in made[-1].children if hasattr(part, 'value') and 'figure' in part.value)"
PATIENCE = 120


def sources(stem: str) -> list[str]:
    """The code cells of a notebook, shortened, after two that shorten more."""
    path = next(path for path in NOTEBOOKS if path.stem == stem)
    return [SHORTER, *(cell.source for cell in with_parameters(path, SHORT.get(stem, {})).cells if cell.cell_type == "code")]


class Kernel:
    """A kernel of its own, whose pulib writes to `folder`: `run`, `start` and `finish` cells, `kill`, `interrupt`, `move` a slider."""

    def __init__(self, folder: Path) -> None:
        env = dict(os.environ, PULIB_BUILD=str(folder), OMP_NUM_THREADS="1", PYTHONPATH=os.pathsep.join([str(ROOT), str(ROOT / "tests" / "offline")]))
        self.manager = KernelManager(kernel_name="python3")
        self.manager.start_kernel(env=env, cwd=str(ROOT / "notebooks"))
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=PATIENCE)
        self.subshell = None

    def start(self, source: str) -> str:
        return self.client.execute(source, stop_on_error=False)  # else what is sent just after an error can be dropped without a word

    def finish(self, asked: str, said: str = "") -> tuple[str, str]:
        """The error, or nothing, and what a cell printed and showed; stops when it has printed `said`."""
        error, shown, end = "", "", time.monotonic() + PATIENCE
        while time.monotonic() < end:
            message = self.client.get_iopub_msg(timeout=PATIENCE)
            if message["parent_header"].get("msg_id") != asked:
                continue
            kind, content = message["msg_type"], message["content"]
            if kind == "error":
                error = f"{content['ename']}: {content['evalue']}"
            elif kind == "stream" and content["name"] == "stdout":
                shown += content["text"]
            elif kind in ("display_data", "execute_result"):
                shown += "".join(_digest(content["data"], name) for name in ("text/html", "image/png"))
            elif kind == "status" and content["execution_state"] == "idle":
                break
            if said and said in shown:
                break
        return error, shown

    def run(self, source: str) -> tuple[str, str]:
        return self.finish(self.start(source))

    def ask(self, expression: str) -> object:
        error, shown = self.run(f"print(repr({expression}))")
        assert not error, error
        return ast.literal_eval(shown.strip())

    def all(self, cells: list[str], times: int = 1) -> list[str]:
        """Run cells, each so many times in a row; what they showed the last time."""
        shown = []
        for source in cells:
            for _ in range(times):
                error, last = self.run(source)
                assert not error, f"{error} in\n{source}"
            shown.append(last)
        return shown

    def kill(self) -> None:
        if self.manager.is_alive():
            os.kill(self.manager.provisioner.pid, signal.SIGKILL)
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)  # cleans up

    def move(self, values: list[float], beside: bool) -> None:
        """What a front end sends when the last slider is moved; `beside` the cell that runs, in a subshell, or after it."""
        if beside and self.subshell is None:
            asked = self.client.session.msg("create_subshell_request", {})
            self.client.control_channel.send(asked)
            self.subshell = self.client.control_channel.get_msg(timeout=PATIENCE)["content"]["subshell_id"]
        for value in values:
            content = {"comm_id": self.handle, "data": {"method": "update", "state": {"value": value}, "buffer_paths": []}}
            message = self.client.session.msg("comm_msg", content)
            if beside:
                message["header"]["subshell_id"] = self.subshell
            self.client.shell_channel.send(message)

    def find_slider(self) -> None:
        self.handle = self.ask("made[-1].children[0].children[0].model_id")

    def shows(self) -> tuple[float, bool]:
        """The last slider's value, and whether its picture is that of this value."""
        return self.ask(f"(v := made[-1].children[0].children[0].value, {VIEW}.value == pulib.widgets.safe_html(made[-1].draw, v))")


def _digest(data: dict, name: str) -> str:
    return f"<{name} {hashlib.sha256(data[name].encode()).hexdigest()[:12]}>" if name in data else ""


@pytest.fixture(scope="module")
def kernels():
    """Start kernels, and end them all."""
    started = []

    def start(folder: Path) -> Kernel:
        started.append(Kernel(folder))
        return started[-1]

    yield start
    for kernel in started:
        kernel.kill()


def whole(folder: Path) -> dict[str, str]:
    """All files of a folder that can be read, with their digests; fails on one that is not whole, or is left over."""
    from safetensors.torch import load

    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = path.read_bytes()
        if path.suffix == ".json":
            json.loads(content)
        elif path.suffix in (".safetensors", ".checkpoint"):
            load(content)
        elif path.suffix == ".png":
            Image.open(path).load()
        found[str(path.relative_to(folder))] = hashlib.sha256(content).hexdigest()
    return found


# --------------------------------------------------------------------------------- what a second run would find changed


class Mutations(ast.NodeVisitor):
    """Names that a cell takes from other cells and gives another value, in the order in which it runs; bodies of functions run elsewhere."""

    IN_PLACE = {"append", "extend", "insert", "pop", "clear", "update", "setdefault"}

    def __init__(self) -> None:
        self.taken, self.given, self.changed = set(), set(), set()

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load):
            self.taken |= {node.id} - self.given
        else:
            self.changed |= {node.id} & self.taken
            self.given.add(node.id)

    def visit_Assign(self, node: ast.Assign) -> None:
        self.visit(node.value)
        for target in node.targets:
            self.visit(target)
            if isinstance(target, ast.Subscript):
                self.change(target)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self.visit(node.value)
        self.change(node.target)

    def visit_Call(self, node: ast.Call) -> None:
        self.generic_visit(node)
        name = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        if ".optim." in ast.unparse(node.func):  # torch.optim.Adam(net.parameters()): it will be trained
            for network in (n.func.value for part in node.args for n in ast.walk(part) if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute)):
                self.change(network)
        if name in self.IN_PLACE or (name.endswith("_") and not name.startswith("_")):
            self.change(node.func.value)

    def change(self, node: ast.AST) -> None:
        while isinstance(node, (ast.Subscript, ast.Attribute)):
            node = node.value
        if isinstance(node, ast.Name):
            self.changed |= {node.id} - self.given

    def visit_For(self, node: ast.For) -> None:
        for part in (node.iter, node.target, *node.body, *node.orelse):
            self.visit(part)

    def comprehension(self, node: ast.AST) -> None:
        before, taken = set(self.given), set(self.taken)
        own = {name.id for each in node.generators for name in ast.walk(each.target) if isinstance(name, ast.Name)}
        self.taken -= own
        for each in node.generators:
            for part in (each.iter, each.target, *each.ifs):
                self.visit(part)
        for part in ("elt", "key", "value"):
            self.visit(getattr(node, part, ast.Pass()))
        self.given = before
        self.taken |= taken

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = comprehension

    def definition(self, node: ast.AST) -> None:
        self.given.add(node.name)

    visit_FunctionDef = visit_ClassDef = definition

    def visit_Lambda(self, node: ast.Lambda) -> None:
        pass


def mutated(source: str) -> list[str]:
    """The names that a cell takes from other cells and gives another value, so that a second run starts from something else."""
    found = Mutations()
    found.visit(ast.parse(source))
    return sorted(found.changed)


KNOWN = {  # names that a second run of their cell finds changed, and why that is not noticed
    ("01_ddpm", "net"): "is trained on: a second run of that cell alone starts at the error that the first ended with",
    ("02_pu_risk", "runs"): "gets the same keys with the same values once more",
    ("03_negative_elbo", "drawn_losses"): "gets the same key once more",
    ("04_pu_diffusion", "reports"): "gets the same key once more",
}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_cell_gives_another_value_to_what_it_was_given(path):
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    found = {(path.stem, name) for cell in cells for name in mutated(cell.source)}
    assert found == {key for key in KNOWN if key[0] == path.stem}


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("x = x[x > 0]", ["x"]),
        ("images -= images.mean()", ["images"]),
        ("rows.append(1)", ["rows"]),
        ("images.mul_(2)", ["images"]),
        ("table['a'] = 1", ["table"]),
        ("for i in range(3):\n    x = x + i", ["x"]),
        ("x = f()\nx = x[1:]\nx -= 1", []),
        ("rows = []\nfor i in range(3):\n    rows.append(i)", []),
        ("y = [x for x in z]\ndef f(x):\n    x += 1\n    return x", []),
        ("for row in table:\n    row['a'] = row['b']", []),
    ],
)
def test_a_cell_that_changes_its_input_is_found(source, names):
    assert mutated(source) == names


def replaced(cells: list[str]) -> list[str]:
    """The names that a cell takes from an earlier one and that a later one gives another value: run again alone, it would take the wrong one."""
    before, reads, found = set(), set(), set()
    for source in cells:
        names = Mutations()
        names.visit(ast.parse(source))
        found |= names.given & reads
        reads |= (names.taken | (globals_within(symtable.symtable(source, "cell", "exec")) - names.given)) & before
        before |= names.given
    return sorted(found)


def globals_within(table: symtable.SymbolTable) -> set[str]:
    """What functions take from the cells."""
    return set().union(*({s.get_name() for s in inner.get_symbols() if s.is_global()} | globals_within(inner) for inner in table.get_children()))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_cells_may_be_run_again_after_later_ones(path):
    cells = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert [name for name in replaced(cells) if (path.stem, name) not in KNOWN] == []


@pytest.mark.parametrize(
    ("cells", "names"),
    [
        (["x = 1", "print(x)", "x = 2"], ["x"]),
        (["x = 1", "def f():\n    return x", "x = 2"], ["x"]),
        (["x = 1", "y = [x for _ in range(3)]", "for x in y:\n    pass"], ["x"]),
        (["x = 1", "f = lambda: x", "x = 2"], ["x"]),
        (["x = 1", "x = 2\nprint(x)", "x = 3\ny = [x for x in range(3)]"], []),
        (["x = 1\nprint(x)", "x = 2\ndef f():\n    return x"], []),
    ],
)
def test_a_name_that_is_used_twice_is_found(cells, names):
    assert replaced(cells) == names


# ---------------------------------------------------------------------------------------- in kernels: one that trains


def training_cell(stem: str) -> int:
    """Which of `sources` trains, step by step."""
    return next(i for i, source in enumerate(sources(stem)) if "in training.fit(base, task.unlabeled" in source or "records = this.fit(" in source)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("build")


@pytest.fixture(scope="module")
def played(kernels, folder):
    """A kernel in which notebook 04 ran, after one that was killed while it trained; and what there was before, after the kill, and to see."""
    cells, at = sources("04_pu_diffusion"), training_cell("04_pu_diffusion")
    results = folder / "course" / "04_pu_diffusion.results.json"
    results.parent.mkdir()
    results.write_text('[{"arm": "of another day"}]')
    before = whole(folder)
    first = kernels(folder)
    first.all(cells[:at])
    first.finish(first.start(cells[at]), said="step ")
    first.kill()
    after = whole(folder)
    second = kernels(folder)
    without_top = [second.run(cells[i])[0] for i in (at, at + 1)]
    shown = second.all(cells)
    return second, cells, at, shown, json.loads(results.read_text()), (before, after, without_top)


@pytest.mark.notebooks
def test_a_kernel_killed_in_training_is_started_again(played, folder, tried):
    kernel, cells, at, shown, rows, (before, after, without_top) = played
    assert after == before, "what was there is there, and nothing half-written"
    assert all(error.startswith("NameError: name ") for error in without_top), without_top
    assert [row["arm"] for row in rows] == ["unsupervised", "supervised", "pu", "oracle"]
    lost = len(before) - len(whole(folder).keys() & before.keys())
    tried("fault", "04: kernel killed in training, run again", "all cells run in a new kernel; the results of another day are whole until the new ones replace them", lost)
    tried("fault", "04: kernel killed, gone on in the middle", f"{without_top[0]}; then all from the top runs")


@pytest.mark.notebooks
def test_an_interrupted_training_cell_is_run_again(played, folder, tried):
    kernel, cells, at, shown, rows, _ = played
    before = whole(folder)
    kernel.find_slider()
    asked = kernel.start(cells[at])
    kernel.finish(asked, said="step ")
    kernel.manager.interrupt_kernel()
    error, _ = kernel.finish(asked)
    assert error.startswith("KeyboardInterrupt")
    kernel.move([3], beside=False)
    assert kernel.shows() == (3, True)
    assert kernel.all(cells[at:]) == shown[at:]
    assert whole(folder) == before
    tried("fault", "04: training interrupted, its slider moved, run again", "KeyboardInterrupt; the slider answers, and the cell and the rest give what they gave without")


@pytest.mark.notebooks
@pytest.mark.parametrize("beside", [pytest.param(True, marks=SUBSHELLS), False], ids=["in a subshell", "after the cell"])
def test_a_slider_moved_in_training_changes_nothing_but_its_picture(played, beside, tried):
    kernel, cells, at, shown, _, _ = played
    kernel.find_slider()
    kernel.ask("setattr(made[-1].children[0].children[0], 'value', 0)")
    asked = kernel.start(cells[at])
    kernel.finish(asked, said="step ")
    kernel.move([1, 2, 3, 1, 2], beside)
    error, again = kernel.finish(asked)
    assert not error
    assert kernel.run("print()") == ("", "\n")
    until(lambda: kernel.shows() == (2, True), "the picture of the last value")
    assert shown[at].endswith(again[-60:])
    assert kernel.all(cells[at + 1 : at + 6]) == shown[at + 1 : at + 6]  # to the end of its section
    tried("fault", f"04: slider moved in training, {'heard beside the cell' if beside else 'heard after the cell'}", "the picture is that of the last value, and the numbers are the same")


# --------------------------------------------------------------------------------------- in kernels: those that write nothing


@pytest.mark.notebooks
@pytest.mark.parametrize("stem", QUICK + [pytest.param(stem, marks=LONG) for stem in ("01_ddpm", "05_the_prior", "06_one_object", "07_failure_museum")])
def test_a_kernel_killed_in_the_middle_and_cells_run_in_any_order(stem, kernels, tmp_path, tried):
    cells = sources(stem)
    middle = len(cells) // 2
    first = kernels(tmp_path)
    first.all(cells[:middle])
    first.start(cells[middle])
    first.kill()
    second = kernels(tmp_path)
    error, _ = second.run(cells[middle])
    assert error.startswith("NameError: name ")
    shown = second.all(cells)
    second.all(cells[::-1])
    assert second.all(cells) == shown
    second.kill()
    assert whole(tmp_path) == {}
    tried("fault", f"{stem}: kernel killed in the middle, gone on there; cells run from the last to the first", f"{error}; then all from the top runs, and shows the same")


# ------------------------------------------------------------------------------------ in kernels: one that keeps files


@pytest.fixture(scope="module")
def side_by_side(kernels, tmp_path_factory):
    """Two kernels that ran notebook 08 at once in one folder: what each showed, and the folder."""
    folder, cells = tmp_path_factory.mktemp("shared"), sources("08_scale_up")
    pair = [kernels(folder) for _ in range(2)]
    asked = [[kernel.start(source) for source in cells] for kernel in pair]
    ends = [[kernel.finish(one) for one in many] for kernel, many in zip(pair, asked)]
    return folder, ends, pair[0]


@pytest.mark.notebooks
def test_the_images_of_a_notebook_stay_whole_when_writing_them_again_breaks_off(tmp_path, monkeypatch, tried):
    imports, cell = (source for source in sources("08_scale_up") if "import save_image" in source or "save_image(image" in source)
    names = {"where": tmp_path}
    exec(imports, names)
    exec(cell, names)
    before, save = whole(tmp_path), Image.Image.save

    def half(image, file, *_, **__):
        save(image, content := BytesIO(), "png")
        cut = content.getvalue()[: content.tell() // 2]
        file.write(cut) if isinstance(file, BytesIO) else Path(file).write_bytes(cut)
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", half)
    with pytest.raises(KeyboardInterrupt):
        exec(cell, names)
    assert len(before) == 50 and whole(tmp_path) == before
    tried("fault", "08: interrupted while it writes its images again", "KeyboardInterrupt; the images are those that were there")


def rows_of(folder: Path) -> list[dict]:
    return json.loads((folder / "course" / "08_scale_up.results.json").read_text())


@pytest.mark.notebooks
def test_one_notebook_in_two_kernels_at_once(side_by_side, tried):
    folder, (one, other), _ = side_by_side
    assert not [error for error, _ in one + other if error]
    assert one[-8:] == other[-8:]
    files = whole(folder)
    assert len(rows_of(folder)) == 1 and any(name.endswith(".checkpoint") for name in files)
    assert not [name for name in files if "/." in name or name.startswith(".")], "nothing is left over"
    tried("fault", "08: in two kernels at once, one folder", f"both run to their end and show the same; {len(files)} files, all whole")


@pytest.mark.notebooks
def test_a_kernel_killed_between_checkpoints_goes_on_from_the_last(side_by_side, kernels, tmp_path, tried):
    cells, at = sources("08_scale_up"), training_cell("08_scale_up")
    first = kernels(tmp_path)
    first.all(cells[:at])
    first.start(cells[at])
    until(lambda: list(tmp_path.rglob("step_*.checkpoint")), "a checkpoint")
    first.kill()
    before = whole(tmp_path)
    second = kernels(tmp_path)
    second.all(cells)
    lost = len(before) - len(whole(tmp_path).keys() & before.keys())
    assert rows_of(tmp_path) == rows_of(side_by_side[0])
    tried("fault", "08: kernel killed between checkpoints, run again", "goes on from the last one, and its results are those of a run without", lost)


@pytest.mark.notebooks
def test_cells_run_twice(side_by_side, tried):
    folder, (shown, _), kernel = side_by_side
    cells, rows, files = sources("08_scale_up"), rows_of(folder), whole(folder)
    assert kernel.all(cells, times=2)[2:] == [text for _, text in shown][2:]
    assert rows_of(folder) == rows and whole(folder).keys() == files.keys()
    tried("fault", "08: each cell run twice in a row", "shows what it showed, and leaves the same results")


# ------------------------------------------------------------------------------------------------------ in a browser

TRAINS = """
import pathlib, time
import torch
from pulib import plots, risk, training, widgets

def draw(v):
    return plots.curves({"a": ([0, 1], [0, v])}, "x", "y", f"A line up to {v:g}."), f"up to {v:g}"

def train(steps):
    images = torch.rand(30, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    settings = training.Settings(steps, batch_unlabeled=6, batch_sensitive=2)
    objective = lambda u, s: risk.pu_risk(u, s, 0.2)
    for record in training.fit(training.new_model((8, 16), T=50), images[:20], objective, settings, images[20:]):
        risks.append(float(record.risk))
        torch.rand(1)
        pathlib.Path(f"trains_{steps}").touch()  # for the test, as the next
        while len(risks) == steps - 2 and wait and not pathlib.Path("moved").exists():
            time.sleep(0.05)

risks, wait = [], False
box = widgets.slider(draw, "level", 0.3, 0, 1, 0.1)
view = next(part for part in box.children if hasattr(part, "value") and "figure" in part.value)
box
"""
ALONE = "train(40); alone = list(risks)"
BESIDE = "risks.clear(); wait = True; train(40); beside = list(risks); seen = 'up to 0.6' in view.value"
ENDLESS = "risks.clear(); wait = False; train(10**6)"


@pytest.mark.browser
def test_a_slider_moved_in_training_in_a_browser(tmp_path, tried):
    need_browser()
    cells = [new_code_cell(source) for source in (TRAINS, ALONE, BESIDE, ENDLESS)]
    server = Lab(tmp_path / "lab")
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"])
            kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
            page = Page(server, browser, server.serve("class.ipynb", new_notebook(cells=cells, metadata=kernel)))

            def run(index: int, wait: bool = True) -> None:
                page.cell(index).locator(".cm-content").click()
                page.tab.keyboard.press("Control+Enter")
                if wait:
                    expect(page.cell(index).locator(".jp-InputPrompt")).to_have_text(re.compile(r"\[\d+\]"), timeout=PATIENCE * 1000)

            run(0)
            box = page.cell(0).locator(".pulib-slider")
            expect(box.locator("figure")).to_be_visible(timeout=PATIENCE * 1000)

            def move(key: str, value: float) -> None:
                box.get_by_role("slider").press(key)
                expect(box.locator(f'figure[data-value="{value!r}"]')).to_have_count(1, timeout=PATIENCE * 1000)

            run(1)
            run(2, wait=False)
            expect(page.cell(2).locator(".jp-InputPrompt")).to_have_text(re.compile(r"\[\*\]"))
            for key in ("ArrowRight", "ArrowRight", "ArrowRight"):
                box.get_by_role("slider").press(key)
            (server.root / "moved").touch()
            expect(page.cell(2).locator(".jp-InputPrompt")).to_have_text(re.compile(r"\[\d+\]"), timeout=PATIENCE * 1000)
            expect(box.locator("figure figcaption")).to_have_text("up to 0.6", timeout=PATIENCE * 1000)
            beside = page.kernel.ask("(beside == alone, seen)")
            assert beside[0], "the numbers of training are the same"
            run(3, wait=False)
            expect(page.cell(3).locator(".jp-InputPrompt")).to_have_text(re.compile(r"\[\*\]"))
            until((server.root / f"trains_{10**6}").exists, "the cell to train")  # interrupted before its first line, ipykernel never answers it
            page.tab.keyboard.press("Escape")
            page.tab.keyboard.press("i")
            page.tab.keyboard.press("i")
            expect(page.cell(3).locator(".jp-OutputArea-output", has_text="KeyboardInterrupt").first).to_be_visible(timeout=PATIENCE * 1000)
            move("Home", 0.0)
            assert not page.problems, page.problems
            page.close()
            browser.close()
    finally:
        server.stop()
    tried("fault", "in a browser: slider moved in training, then training interrupted, then moved again", f"its picture {'comes while the cell trains' if beside[1] else 'waits for the end of the cell'}; the numbers of training are the same to the last bit")
