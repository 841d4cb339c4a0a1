"""The doctor finds what is amiss, says how to mend it, and goes on to the next check: each fault here is a real one where that is possible."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections import namedtuple
from importlib import metadata
from pathlib import Path

import pytest
import torch

from pulib import data, doctor

ROOT = Path(doctor.__file__).resolve().parent.parent
WANTED = {re.match(r"[\w-]+", line)[0]: line for line in metadata.requires("pulib") if ";" not in line}
ELSEWHERE = r"set PULIB_BUILD=%USERPROFILE%\pu-course\build" if os.name == "nt" else 'export PULIB_BUILD="$HOME/pu-course/build"'
CLOSE = 'close other programs, and other notebooks with "Shut Down All Kernels" in the Kernel menu of JupyterLab'
NEED_PULIB = {name for name, (_, needs_pulib) in doctor.CHECKS.items() if needs_pulib}
PYTHON = f'"{sys.executable}"' if " " in sys.executable else sys.executable  # as a shell takes it
REINSTALL = f'{PYTHON} -m pip install --force-reinstall "{WANTED["torch"]}" "{WANTED["torchvision"]}"'
SKIPPED = doctor.Check("data", "warning", "skipped, as pulib cannot be imported", "mend packages and loading first, then run the doctor again")


POSIX = pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")


def run(*arguments, **environment):
    """`python -m pulib.doctor` in a process of its own."""
    command = [sys.executable, "-m", "pulib.doctor", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | {name: str(value) for name, value in environment.items()}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)


def read(text, status):
    """The checks in the JSON of a run, by name, after a look at what all such objects have in common."""
    told = json.loads(text)
    assert list(told) == ["verdict", "ok", "checks"] and told["ok"] == (status == 0)
    checks = {row["name"]: doctor.Check(**row) for row in told["checks"]}
    assert list(checks) == list(doctor.CHECKS)
    for check in checks.values():
        assert check.status in ("ok", "warning", "failure") and "\n" not in check.found + check.mend
        assert check.found and bool(check.mend) == (check.status != "ok")
    failed = [check.name for check in checks.values() if check.status == "failure"]
    assert bool(failed) == (status == 1)
    if failed:
        assert told["verdict"].startswith(f"{len(failed)} of {len(checks)} checks failed: {', '.join(failed)}")
    return checks


def asked(**environment):
    done = run("--json", **environment)
    assert done.returncode in (0, 1), done.stderr[-3000:]
    return read(done.stdout, done.returncode)


def amiss(checks):
    """The names of the checks that are not ok, but for warnings about the machine's memory and the like."""
    machine = {name for name in ("memory", "disk", "device") if checks[name].status == "warning" and "skipped" not in checks[name].found}
    return {check.name for check in checks.values() if check.status != "ok"} - machine


def sentence(check, *folders):
    text = f"{check.found} -> {check.mend}".replace(PYTHON, "python").replace(str(ROOT), ".")
    for folder in folders:
        text = text.replace(str(folder), "")
    return text


@pytest.fixture(scope="module")
def healthy():
    return asked()


@pytest.fixture
def here(monkeypatch, capsys):
    """The doctor in this process: a call that gives its checks. Loading and training, which take seconds, pass untried unless they are asked for."""

    def ask(*slow):
        for name in {"loading", "training"} - set(slow):
            monkeypatch.setitem(doctor.CHECKS, name, (lambda: ("ok", "not tried", ""), name == "training"))
        status = doctor.main(["--json"])
        return read(capsys.readouterr().out, status)

    return ask


# ------------------------------------------------------------------------------------------------- well


def test_all_is_well_here(healthy):
    assert not amiss(healthy)
    n = len(data.manifest())
    assert healthy["data"].found == f"{n} of {n} files verified by SHA-256 in {data.DATA}" and n >= 19
    assert f"torch {torch.__version__.split('+')[0]}" in healthy["packages"].found
    assert healthy["device"].found.endswith(("bf16: no", "bf16: yes"))
    first, last, rate = map(float, re.fullmatch(r"risk (\S+) -> (\S+) in \d+ steps, (\S+) steps/s", healthy["training"].found).groups())
    assert 0 < last < first and rate > 0


def test_the_table_can_be_read_on_any_console_and_tells_the_same(healthy, tmp_path):
    build = tmp_path / "Übung" / "build"
    done = run(PYTHONIOENCODING="ascii", PULIB_BUILD=build, COLUMNS="80")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert done.stdout.isascii() and r"\xdcbung" in done.stdout
    named = [line.split()[1] for line in lines if line.startswith(("ok", "WARNING"))]
    assert named == list(doctor.CHECKS)
    assert all(line[19:20] != " " and line[18] == " " for line in lines[:-2])  # in columns
    assert max(len(re.sub(r"\\x..", "ü", line)) for line in lines if str(tmp_path) not in line and "->" not in line) <= 80
    assert lines[-1].startswith(("All is well: ", "All that is needed is here, with "))
    assert not build.parent.exists()  # what was written to try it is gone
    risks = healthy["training"].found.split(" in ")[0]
    assert risks in done.stdout  # training is the same each time


def test_options(capsys):
    for arguments, status in ((["--jsom"], 2), (["--help"], 0)):
        with pytest.raises(SystemExit) as stopped:
            doctor.main(arguments)
        assert stopped.value.code == status
    assert "--json" in capsys.readouterr().out


# --------------------------------------------------------------------------------------------- verdicts


def test_verdicts_and_exit_status(monkeypatch, capsys):
    def told(*statuses):
        checks = {f"check{i}": (lambda status=status: (status, "this was found", "" if status == "ok" else "do that"), False) for i, status in enumerate(statuses)}
        monkeypatch.setattr(doctor, "CHECKS", checks)
        return doctor.main([]), capsys.readouterr().out.splitlines()

    assert told("ok", "ok") == (0, ["ok       check0    this was found", "ok       check1    this was found", "", "All is well: 2 of 2 checks passed."])
    status, lines = told("ok", "warning")
    assert status == 0 and lines[-1] == "All that is needed is here, with 1 warning: check1. What to do stands above."
    status, lines = told("failure", "ok", "warning", "failure")
    assert status == 1 and lines[-1] == "2 of 4 checks failed: check0, check3 (1 warning: check2). What to do stands above."
    assert lines[:2] == ["FAILURE  check0    this was found", "                   -> do that"]


def test_a_check_that_breaks_is_a_failure_of_its_own(here, monkeypatch, tried):
    def broken():
        print("noise")  # must not get into the JSON
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setitem(doctor.CHECKS, "port", (broken, False))
    checks = here()
    assert amiss(checks) == {"port"}
    assert checks["port"].found == "RuntimeError: first line second line"
    assert checks["port"].mend == f"mend what failed above; if nothing else did, report this with the output of {PYTHON} -m pulib.doctor --json"
    tried("fault", "doctor: a check breaks", sentence(checks["port"]))


# ----------------------------------------------------------------------------- Python, packages, loading


def test_python_out_of_range(here, monkeypatch, tried):
    monkeypatch.setattr("platform.python_version", lambda: "3.9.18")
    needed = metadata.metadata("pulib")["Requires-Python"]
    checks = here()
    assert amiss(checks) == {"Python"} and checks["Python"].status == "failure"
    assert checks["Python"].found.startswith("3.9.18 at ") and checks["Python"].found.endswith(f"; the course needs {needed}")
    assert checks["Python"].mend == f"in {ROOT}: rm -rf .venv && make PYTHON=python3.12 setup   (or: conda env create -f environment.yml)"
    tried("fault", "doctor: Python 3.9", sentence(checks["Python"]))


@POSIX
def test_commands_hold_where_the_folder_has_a_space(tmp_path, monkeypatch):
    venv = tmp_path / "pu course" / ".venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").symlink_to(sys.executable)
    (venv / ".pulib-installed").write_text("")
    monkeypatch.setattr(sys, "executable", str(venv / "bin" / "python"))
    monkeypatch.setattr(sys, "prefix", str(venv))
    command = re.search(r"\(or: (rm .+) && make setup\)", doctor.install())[1]
    assert subprocess.run(command, shell=True).returncode == 0 and not (venv / ".pulib-installed").exists()
    assert subprocess.run(f"{doctor.python()} -c pass", shell=True).returncode == 0


def test_packages_missing_and_out_of_range(here, monkeypatch, tried):
    version = metadata.version

    def another(name):
        if name == "tqdm":
            raise metadata.PackageNotFoundError(name)
        return "99.0" if name == "torch" else version(name)

    monkeypatch.setattr(metadata, "version", another)
    checks = here()
    assert amiss(checks) == {"packages"} and checks["packages"].status == "failure"
    torch_range, tqdm_range = (WANTED[name].removeprefix(name) for name in ("torch", "tqdm"))
    assert checks["packages"].found == f"2 of {len(WANTED)}: torch 99.0 (needed: {torch_range}), tqdm is missing (needed: {tqdm_range})"
    mend = checks["packages"].mend
    assert mend.startswith(f"in {ROOT}: {PYTHON} -m pip install -e .   (or: ") and mend.endswith("make setup)")
    assert (re.search(r'rm "?' + re.escape(str(stamp := Path(sys.prefix, ".pulib-installed"))) + '"? && ', mend) is not None) == stamp.exists()
    tried("fault", "doctor: a package missing, another too new", sentence(checks["packages"]))


def test_pulib_is_not_installed(here, monkeypatch):
    def requires(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", requires)
    checks = here()
    assert checks["packages"].status == "failure" and "PackageNotFoundError" in checks["packages"].found
    assert " -m pip install -e ." in checks["packages"].mend and checks["data"].status == "ok"


@pytest.mark.parametrize(
    "package, code, found, mend",
    [
        ("torch", "raise ImportError('libcudart.so.12: cannot open shared object file')", "torch cannot be imported (ImportError: libcudart.so.12: cannot open shared object file)", REINSTALL),
        pytest.param("torch", "import os, signal; os.kill(os.getpid(), signal.SIGILL)", "torch cannot be imported (the process was ended by SIGILL)", REINSTALL, marks=POSIX),
        pytest.param("torch", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "(the process was ended by SIGKILL): most likely the memory was full", CLOSE, marks=POSIX),
        ("torchvision", "raise RuntimeError('operator torchvision::nms does not exist')", "do not go together (RuntimeError: operator torchvision::nms does not exist)", REINSTALL),
        ("torch", "raise ModuleNotFoundError('No module named torch')", "torch cannot be imported (ModuleNotFoundError: No module named torch)", f"in {ROOT}: {PYTHON} -m pip install -e ."),
    ],
    ids=["broken", "crashing", "killed", "pair", "missing"],
)
def test_torch_that_cannot_be_imported(package, code, found, mend, tmp_path, tried, request):
    (tmp_path / f"{package}.py").write_text(code)
    checks = asked(PYTHONPATH=tmp_path)
    assert amiss(checks) == {"loading"} | NEED_PULIB
    assert checks["loading"].status == "failure" and checks["loading"].found.endswith(found) and checks["loading"].mend.startswith(mend)
    for name in NEED_PULIB:
        assert checks[name] == doctor.Check(name, SKIPPED.status, SKIPPED.found, SKIPPED.mend)
    tried("fault", f"doctor: {package} is {request.node.callspec.id.replace('pair', 'of another torch')}", sentence(checks["loading"]))


def test_torch_comes_again_from_where_it_came(monkeypatch):
    version = metadata.version
    for local, source in (("+cpu", "cpu"), ("+cu128", "cu128"), ("", None), ("a0+nv25.9", None)):
        monkeypatch.setattr(metadata, "version", lambda name, local=local: f"2.12.0{local}" if name == "torch" else version(name))
        assert doctor.reinstall("torch", "torchvision") == REINSTALL + (f" --index-url https://download.pytorch.org/whl/{source}" if source else "")


# ------------------------------------------------------------------------------------- data and writing


@pytest.fixture
def copied(tmp_path):
    """A copy of data/ that may be damaged."""
    shutil.copytree(data.DATA, tmp_path / "data")
    return tmp_path / "data"


def restored(folder):
    return f"in {ROOT}: git checkout -- data; then unset PULIB_DATA, or copy the folder to {folder}"


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="a course that was not cloned")
def test_data_corrupt_and_missing(copied, tried):
    weights = copied / "weights" / "base_even.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    (copied / "results" / "04_pu_diffusion.json").unlink()
    checks = asked(PULIB_DATA=copied)
    assert amiss(checks) == {"data"} and checks["data"].status == "failure"
    assert checks["data"].found == f"2 of {len(data.manifest())} files in {copied}: results/04_pu_diffusion.json is missing, weights/base_even.safetensors is corrupt"
    assert checks["data"].mend == restored(copied)
    tried("fault", "doctor: corrupt weights, a results file missing", sentence(checks["data"], copied.parent))


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="a course that was not cloned")
def test_no_manifest_and_a_build_folder_that_cannot_be_written(copied, tmp_path, tried):
    (copied / "manifest.json").unlink()
    build = tmp_path / "file" / "build"
    build.parent.write_text("a file, no folder")
    checks = asked(PULIB_DATA=copied, PULIB_BUILD=build)
    assert amiss(checks) == {"data", "writing", "training"}  # the digits cannot be verified either
    assert checks["data"].status == "failure" and checks["data"].mend == restored(copied)
    assert checks["data"].found == f"{copied / 'manifest.json'} is missing, so that nothing could be verified"
    assert checks["writing"].status == "failure" and checks["writing"].mend == ELSEWHERE
    assert re.fullmatch(re.escape(f"{build} cannot be written (") + r"[\w ]+\)", checks["writing"].found)
    assert checks["training"].mend == f"mend what failed above; if nothing else did: {doctor.reinstall('torch', 'torchvision')}"
    assert build.parent.read_text() == "a file, no folder"
    tried("fault", "doctor: no manifest", sentence(checks["data"], tmp_path))
    tried("fault", "doctor: a build folder that cannot be written", sentence(checks["writing"], tmp_path))


def test_where_the_data_come_from(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "ROOT", tmp_path)
    monkeypatch.setattr(data, "DATA", tmp_path / "data")
    assert doctor.restore() == f"in {tmp_path}: download the course again, and take its folder data"
    (tmp_path / ".git").mkdir()
    assert doctor.restore() == f"in {tmp_path}: git checkout -- data"


@pytest.mark.parametrize("content", [b'{"digits.npz"', b"[]", b"{}"])
def test_a_damaged_manifest(content, copied, monkeypatch, here):
    (copied / "manifest.json").write_bytes(content)
    monkeypatch.setattr(data, "DATA", copied)
    checks = here()
    assert amiss(checks) == {"data"} and "nothing could be verified" in checks["data"].found


def test_a_disk_that_gives_no_reason(monkeypatch):
    def silent(path, content):
        raise data.WriteError(None, "no reason")

    monkeypatch.setattr(data, "write_atomic", silent)
    assert doctor.check_writing()[:2] == ("failure", f"{data.BUILD} cannot be written (unknown error)")


def test_a_disk_that_gives_back_something_else(monkeypatch):
    write = data.write_atomic
    monkeypatch.setattr(data, "write_atomic", lambda path, content: write(path, content[:-1]))
    assert doctor.check_writing()[:2] == ("failure", f"{data.BUILD} gives back something else than was written")


def test_two_doctors_in_one_folder(monkeypatch, tried):
    """The other one looks while this one's file is there."""
    write, mine, other = data.write_atomic, os.getpid(), []

    def beside(path, content):
        write(path, content)
        monkeypatch.setattr(data, "write_atomic", write)
        monkeypatch.setattr(os, "getpid", lambda: mine + 1)
        other.append(doctor.check_writing()[0])

    monkeypatch.setattr(data, "write_atomic", beside)
    state, says, _ = doctor.check_writing()
    assert [state] == other == ["ok"]
    tried("fault", "two doctors look at one folder", says.replace(str(data.BUILD), "build"))


def test_packages_that_take_for_ever(monkeypatch):
    def slow(command, timeout, **options):
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(doctor.subprocess, "run", slow)
    assert doctor.check_loading()[:2] == ("failure", "importing torch and pulib took more than 300 s")


def test_a_full_disk(here, monkeypatch, tried):
    import errno

    def full(path, content):
        raise data.WriteError(errno.ENOSPC, "full")

    monkeypatch.setattr(data, "write_atomic", full)
    checks = here()
    assert amiss(checks) == {"writing"} and checks["writing"].status == "failure"
    assert checks["writing"].found == f"{data.BUILD} cannot be written (No space left on device)"
    assert checks["writing"].mend == f"make room on its disk, or {ELSEWHERE}"
    tried("fault", "doctor: a full disk", sentence(checks["writing"]))


@pytest.mark.parametrize("free, status", [(0.1, "failure"), (0.5, "warning"), (1.5, "ok")])
def test_little_disk(free, status, here, monkeypatch, tried):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: namedtuple("usage", "free")(free * 1e9))
    check = here()["disk"]
    assert check.status == status and check.found.startswith(f"{free} GB free for {data.BUILD}")
    assert check.mend == ("" if status == "ok" else f"make room on its disk, or write on another: {ELSEWHERE}")
    if check.mend:
        tried("fault", f"doctor: {free} GB of disk left", sentence(check))


@pytest.mark.parametrize("free, status", [(1.2, "warning"), (8.0, "ok")])
def test_little_memory(free, status, here, monkeypatch, tried):
    monkeypatch.setattr("psutil.virtual_memory", lambda: namedtuple("memory", "available")(free * 1e9))
    monkeypatch.setattr(Path, "read_text", nothing_of_groups(Path.read_text))
    checks = here()
    assert checks["memory"].status == status and checks["memory"].found == f"{free} GB available; a notebook takes up to 1.9 GB"
    if status == "warning":
        assert checks["memory"].mend == CLOSE
        tried("fault", f"doctor: {free} GB of memory left", sentence(checks["memory"]))


def test_a_container_has_less_memory_than_its_machine(monkeypatch):
    texts = {"memory.max": "2000000000\n", "memory.current": "1500000000\n", "memory.stat": "anon 1\ninactive_file 200000000\n"}
    monkeypatch.setattr("psutil.virtual_memory", lambda: namedtuple("memory", "available")(64e9))
    monkeypatch.setattr(Path, "read_text", lambda path: texts[path.name])
    assert doctor.available_memory() == pytest.approx(0.7)
    texts["memory.max"] = "max\n"
    assert doctor.available_memory() == 64


def nothing_of_groups(read_text):
    def read(path, *arguments, **options):
        if str(path).startswith("/sys/fs/cgroup"):
            raise FileNotFoundError(path)
        return read_text(path, *arguments, **options)

    return read


# ----------------------------------------------------------------------------- widgets, kernel and port


def test_an_old_widget_extension_and_another_kernel_hide_the_right_ones(tmp_path, monkeypatch, here, tried):
    extension, kernel = tmp_path / "labextensions" / doctor.EXTENSION, tmp_path / "kernels" / "python3"
    extension.mkdir(parents=True)
    (extension / "package.json").write_text(json.dumps({"version": "3.1.11"}))
    kernel.mkdir(parents=True)
    (kernel / "kernel.json").write_text(json.dumps({"argv": ["/opt/other/bin/python", "-m", "ipykernel_launcher", "-f", "{connection_file}"], "display_name": "P", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    checks = here()
    assert amiss(checks) == {"widgets", "kernel"} and {checks["widgets"].status, checks["kernel"].status} == {"failure"}
    assert checks["widgets"].found.endswith(f"{doctor.EXTENSION} 3.1.11 in {extension} do not go together: sliders would not show")
    assert checks["widgets"].mend == f"move the folder {extension} away: it hides the right one"
    assert checks["kernel"].found == f"python3 runs /opt/other/bin/python, not {sys.executable}"
    assert checks["kernel"].mend == f"move the folder {kernel} away: it hides the right one"
    tried("fault", "doctor: an old widget extension", sentence(checks["widgets"], tmp_path))
    tried("fault", "doctor: a kernel of another Python", sentence(checks["kernel"], tmp_path))


def test_no_widget_extension(tmp_path, monkeypatch, here, tried):
    monkeypatch.setattr("jupyter_core.paths.jupyter_path", lambda *parts: [str(tmp_path)])
    checks = here()
    assert amiss(checks) == {"widgets"} and checks["widgets"].found == f"JupyterLab's extension {doctor.EXTENSION} is missing: sliders would not show"
    assert re.fullmatch(re.escape(f"{PYTHON} -m pip install --force-reinstall ") + rf'"{WANTED["ipywidgets"]}" "jupyterlab.widgets~=3\.0\.\d+"', checks["widgets"].mend)
    tried("fault", "doctor: no widget extension", sentence(checks["widgets"]))


def test_a_widget_package_of_another_generation(monkeypatch, here, tried):
    version = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "1.1.11" if name == "jupyterlab_widgets" else version(name))
    checks = here()
    assert amiss(checks) == {"widgets"} and re.search(r"needs jupyterlab.widgets~=3\S+, which is 1\.1\.11: sliders", checks["widgets"].found)
    assert " --force-reinstall " in checks["widgets"].mend
    tried("fault", "doctor: ipywidgets and jupyterlab_widgets of two generations", sentence(checks["widgets"]))


def test_a_widget_extension_that_is_switched_off(tmp_path, monkeypatch, here, tried):
    (tmp_path / "labconfig").mkdir()
    (tmp_path / "labconfig" / "page_config.json").write_text(json.dumps({"disabledExtensions": {doctor.EXTENSION: True}}))
    monkeypatch.setenv("JUPYTER_CONFIG_PATH", str(tmp_path))
    checks = here()
    assert amiss(checks) == {"widgets"} and checks["widgets"].found.endswith(", but it is switched off: sliders would not show")
    assert checks["widgets"].mend == f"{PYTHON} -m jupyter labextension enable {doctor.EXTENSION}"
    tried("fault", "doctor: the widget extension is switched off", sentence(checks["widgets"]))


def test_no_kernel(tmp_path, monkeypatch, here, tried):
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    def none(manager, name):
        raise NoSuchKernel(name)

    monkeypatch.setattr(KernelSpecManager, "get_kernel_spec", none)
    check = here()["kernel"]
    assert check == doctor.Check("kernel", "failure", "there is no kernel python3", f"{PYTHON} -m ipykernel install --sys-prefix --name python3")
    tried("fault", "doctor: no kernel", sentence(check))


def test_a_port_that_is_taken_is_no_failure(monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setattr(doctor, "PORT", port)
        status, found, mend = doctor.check_port()
    assert status == "ok" and not mend and re.fullmatch(rf"{port} is taken; JupyterLab takes (\d+|another) and prints the address", found)


# --------------------------------------------------------------------------------- device and training


def test_a_gpu(here, monkeypatch, tried):
    monkeypatch.setattr("pulib.training.device", lambda: torch.device("cuda"))
    monkeypatch.setattr("pulib.training.best_precision", lambda: "bf16")
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: "NVIDIA H200")
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda: (120e9, 150e9))
    check = here()["device"]
    assert check == doctor.Check("device", "ok", "CUDA, NVIDIA H200, 120.0 of 150.0 GB free; bf16: yes")
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda: (0.3e9, 150e9))
    check = here()["device"]
    assert check.status == "warning" and check.mend == "end the programs that nvidia-smi lists, or use the CPU: export ACCELERATE_USE_CPU=true"
    tried("fault", "doctor: a GPU that others fill", sentence(check))


def test_training_that_fails(here, monkeypatch, tried):
    load = data.load_pu

    def spoilt():
        split = load()
        split.unlabeled.fill_(float("nan"))
        return split

    monkeypatch.setattr(data, "load_pu", spoilt)
    checks = here("training")
    assert amiss(checks) == {"training"} and checks["training"].status == "failure"
    assert checks["training"].found.startswith("it stopped: FloatingPointError: the risk is nan or infinite at step 1 (unlabeled held nan")
    assert checks["training"].mend == f"mend what failed above; if nothing else did: {doctor.reinstall('torch', 'torchvision')}"
    tried("fault", "doctor: training that fails", sentence(checks["training"]))


def test_training_that_does_not_learn(here, monkeypatch):
    from pulib import training

    fit = training.fit
    monkeypatch.setattr(training, "fit", lambda *run: (training.StepRecord(r.step, r.numbers + 1000 * r.step, r.model) for r in fit(*run)))
    checks = here("training")
    assert amiss(checks) == {"training"} and checks["training"].status == "failure"
    assert checks["training"].found.endswith(" steps/s: it did not fall")
