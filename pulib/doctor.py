"""Is all that the course needs here and whole? Says what was found and, for each fault, how to mend it.

    python -m pulib.doctor [--json]

Exit status: 0 where all is well, warnings included, since the course runs with them; 1 where a check failed; 2 for an unknown option.

What is broken may be what this file would import. So it imports the standard library alone, tries torch and pulib in a process of their own,
and looks at what needs them only where that went well.
"""

import argparse
import io
import json
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout, suppress
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GB = 1e9
NOTEBOOK = 1.9  # GB that a notebook takes at most, as tests/seeds.py measured
LEAST_MEMORY = 2.5  # GB; JupyterLab and a browser want theirs
LEAST_DISK, SCARCE_DISK = 0.2, 1.0  # GB
LEAST_GPU = 1.0  # GB
STEPS = 10  # of the training that is tried: about a second on two CPU cores
LOADED = ("torch", "torchvision", "pulib.evaluation", "pulib.widgets")  # together they import all that notebooks 01 to 07 do
LOAD = f"import importlib\nfor name in {LOADED}:\n    print(name, flush=True)\n    importlib.import_module(name)"
CLOSE = 'close other programs, and other notebooks with "Shut Down All Kernels" in the Kernel menu of JupyterLab'
EXTENSION = "@jupyter-widgets/jupyterlab-manager"
MANAGER = {8: 5, 7: 3}  # ipywidgets -> the major version of EXTENSION that speaks its protocol
PORT = 8888

Found = tuple[str, str, str]  # status, what was found, mend


@dataclass(frozen=True)
class Check:
    """What one check found, in a line; status is "ok", "warning" or "failure", and `mend` is empty where it is "ok"."""

    name: str
    status: str
    found: str
    mend: str = ""


# ------------------------------------------------------------------------------------------------ mends


def python() -> str:
    """This interpreter, as a shell takes it."""
    return quoted(sys.executable)


def quoted(path: str | Path) -> str:
    """A path, as a shell takes it."""
    return f'"{path}"' if " " in str(path) else str(path)


def install() -> str:
    """How to install what is missing. `make setup` believes the stamp in its environment, so that must go first."""
    stamp = Path(sys.prefix, ".pulib-installed")
    return f"in {ROOT}: {python()} -m pip install -e .   (or: {f'rm {quoted(stamp)} && ' if stamp.exists() else ''}make setup)"


def reinstall(*names: str) -> str:
    """How to install packages anew, in the ranges that pulib asks for; torch from where it came."""
    wanted = {requirement.name: requirement for requirement in requirements("pulib")}
    local = re.search(r"\+(cpu|cu\d+|rocm[\d.]+|xpu)$", _version("torch") or "") if "torch" in names else None
    source = f" --index-url https://download.pytorch.org/whl/{local[1]}" if local else ""
    ranges = " ".join(f'"{wanted.get(name, name)}"' for name in names)
    return f"{python()} -m pip install --force-reinstall {ranges}{source}"


def restore() -> str:
    """How to get the shipped files back."""
    from .data import DATA

    how = "git checkout -- data" if (ROOT / ".git").exists() else "download the course again, and take its folder data"
    elsewhere = "" if DATA.resolve() == ROOT / "data" else f"; then unset PULIB_DATA, or copy the folder to {DATA}"
    return f"in {ROOT}: {how}{elsewhere}"


def write_elsewhere() -> str:
    """How to have runs write into a folder of one's own."""
    return r"set PULIB_BUILD=%USERPROFILE%\pu-course\build" if os.name == "nt" else 'export PULIB_BUILD="$HOME/pu-course/build"'


# ----------------------------------------------------------------------------------------------- checks


def requirements(package: str) -> list:
    """What an installed package needs without extras, as `packaging` requirements."""
    from packaging.requirements import Requirement

    parsed = map(Requirement, metadata.requires(package) or [])
    return [requirement for requirement in parsed if requirement.marker is None or requirement.marker.evaluate({"extra": ""})]


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def check_python() -> Found:
    """Its version is in the range that pulib's metadata name."""
    from packaging.specifiers import SpecifierSet

    wanted, version = metadata.metadata("pulib")["Requires-Python"], platform.python_version()
    found = f"{version} at {sys.executable}, {platform.system()} {platform.machine()}, pulib {metadata.version('pulib')}"
    if SpecifierSet(wanted).contains(version, prereleases=True):
        return "ok", found, ""
    conda = "conda env create -f environment.yml"
    make = f"rm -rf .venv && make PYTHON=python3.12 setup   (or: {conda})"
    return "failure", f"{found}; the course needs {wanted}", f"in {ROOT}: {conda if os.name == 'nt' else make}"


def check_packages() -> Found:
    """Every package that pulib depends on is installed, in its range."""
    wanted = requirements("pulib")
    versions = {requirement.name: _version(requirement.name) for requirement in wanted}
    wrong = [
        f"{requirement.name} {versions[requirement.name] or 'is missing'} (needed: {requirement.specifier})"
        for requirement in wanted
        if not versions[requirement.name] or not requirement.specifier.contains(versions[requirement.name], prereleases=True)
    ]
    if wrong:
        return "failure", f"{len(wrong)} of {len(wanted)}: {', '.join(wrong)}", install()
    return "ok", f"{len(wanted)} of {len(wanted)} in range: {', '.join(f'{name} {version}' for name, version in versions.items())}", ""


def check_loading() -> Found:
    """torch, torchvision and pulib can be imported, together; tried in a process of its own, as a broken torch may end it."""
    try:
        done = subprocess.run([sys.executable, "-c", LOAD], capture_output=True, text=True, errors="replace", timeout=300)
    except subprocess.TimeoutExpired:
        return "failure", "importing torch and pulib took more than 300 s", reinstall("torch", "torchvision")
    if done.returncode == 0:
        return "ok", "torch, torchvision and pulib can be imported together", ""
    culprit = next((line for line in reversed(done.stdout.split()) if line in LOADED), LOADED[0])
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    reason = next((line for line in reversed(lines) if re.match(r"[\w.]*(Error|Exception)\b", line)), lines[-1] if lines else f"exit status {done.returncode}")
    if done.returncode < 0:
        reason = f"the process was ended by {signal.Signals(-done.returncode).name}"
    if reason.endswith("SIGKILL"):  # by the system, where memory runs out
        return "failure", f"{culprit} cannot be imported ({reason}): most likely the memory was full", CLOSE
    if "torchvision::nms" in done.stderr:
        pair = f"torch {_version('torch')} and torchvision {_version('torchvision')} do not go together"
        return "failure", f"{pair} ({reason})", reinstall("torch", "torchvision")
    torch_is_broken = culprit in ("torch", "torchvision") and "ModuleNotFoundError" not in reason
    return "failure", f"{culprit} cannot be imported ({reason})", reinstall("torch", "torchvision") if torch_is_broken else install()


def check_device() -> Found:
    """What `fit` trains on, and in which precision."""
    import torch

    from .training import best_precision, device

    kind, bf16 = device().type, f"bf16: {'yes' if best_precision() == 'bf16' else 'no'}"
    if kind == "cuda":
        free, total = (n / GB for n in torch.cuda.mem_get_info())
        found = f"CUDA, {torch.cuda.get_device_name()}, {free:.1f} of {total:.1f} GB free; {bf16}"
        if free < LEAST_GPU:
            return "warning", found, "end the programs that nvidia-smi lists, or use the CPU: export ACCELERATE_USE_CPU=true"
        return "ok", found, ""
    if kind != "cpu":
        room = f", {(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()) / GB:.1f} GB free" if kind == "mps" else ""
        return "ok", f"{kind.upper()}{room}; {bf16}", ""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found = f"CPU; cores: {cores}, threads of torch: {torch.get_num_threads()}; {bf16}"
    if torch.version.cuda and shutil.which("nvidia-smi") and not torch.cuda.is_available():
        return "warning", f"{found}; there is an NVIDIA driver, which this torch (CUDA {torch.version.cuda}) cannot use", "see what nvidia-smi says, and update the driver; the CPU will do"
    return "ok", found, ""


def check_data() -> Found:
    """Every file that data/manifest.json lists is there, with its SHA-256."""
    from .data import DATA, DIGITS_FILE, DataError, manifest, read_verified

    try:
        names = sorted(manifest())
    except DataError:
        return "failure", f"{DATA / 'manifest.json'} is corrupt, so that nothing could be verified", restore()
    if DIGITS_FILE not in names:
        state = "does not list the digits" if (DATA / "manifest.json").exists() else "is missing"
        return "failure", f"{DATA / 'manifest.json'} {state}, so that nothing could be verified", restore()
    wrong = []
    for name in names:
        try:
            read_verified(name)
        except DataError as error:
            state = "is corrupt" if "is corrupt" in str(error) else "cannot be read" if (DATA / name).exists() else "is missing"
            wrong.append(f"{name} {state}")
    if wrong:
        return "failure", f"{len(wrong)} of {len(names)} files in {DATA}: {', '.join(wrong)}", restore()
    return "ok", f"{len(names)} of {len(names)} files verified by SHA-256 in {DATA}", ""


def check_widgets() -> Found:
    """ipywidgets, and the extension that JupyterLab will take for it, go together."""
    from jupyter_core.paths import jupyter_path

    theirs, ours = metadata.version("ipywidgets"), _version("jupyterlab_widgets")
    needed = next(requirement for requirement in requirements("ipywidgets") if requirement.name.replace("_", "-") == "jupyterlab-widgets")
    mend = reinstall("ipywidgets", str(needed))
    if not ours or not needed.specifier.contains(ours, prereleases=True):
        return "failure", f"ipywidgets {theirs} needs {needed}, which is {ours or 'missing'}: sliders would not show", mend
    folders = [Path(folder, EXTENSION) for folder in jupyter_path("labextensions")]
    folder = next((folder for folder in folders if (folder / "package.json").exists()), None)
    if folder is None:
        return "failure", f"JupyterLab's extension {EXTENSION} is missing: sliders would not show", mend
    version = json.loads((folder / "package.json").read_text(encoding="utf-8"))["version"]
    found = f"ipywidgets {theirs}, jupyterlab_widgets {ours}, {EXTENSION} {version}"
    if int(version.split(".")[0]) != MANAGER.get(int(theirs.split(".")[0])):
        hides = not folder.is_relative_to(sys.prefix)
        return "failure", f"{found} in {folder} do not go together: sliders would not show", f"move the folder {folder} away: it hides the right one" if hides else mend
    if EXTENSION in disabled_extensions():
        return "failure", f"{found}, but it is switched off: sliders would not show", f"{python()} -m jupyter labextension enable {EXTENSION}"
    return "ok", found, ""


def disabled_extensions() -> set[str]:
    """JupyterLab's extensions that its configuration switches off."""
    from jupyter_core.paths import jupyter_path
    from jupyterlab_server.config import get_page_config

    listed = get_page_config(jupyter_path("labextensions")).get("disabledExtensions", [])
    return {name for name in listed if not isinstance(listed, dict) or listed[name]}


def check_kernel() -> Found:
    """The kernel python3, which the notebooks ask for, is of this environment."""
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    mend = f"{python()} -m ipykernel install --sys-prefix --name python3"
    try:
        spec = KernelSpecManager().get_kernel_spec("python3")
    except NoSuchKernel:
        return "failure", "there is no kernel python3", mend
    command = spec.argv[0]
    if command in ("python", "python3", f"python{sys.version_info[0]}.{sys.version_info[1]}"):
        command = sys.executable  # as Jupyter reads these names
    if os.path.normcase(os.path.dirname(os.path.abspath(command))) == os.path.normcase(os.path.dirname(os.path.abspath(sys.executable))):
        return "ok", f"python3 runs {command}", ""
    hides = not Path(spec.resource_dir).is_relative_to(sys.prefix)
    return "failure", f"python3 runs {command}, not {sys.executable}", f"move the folder {spec.resource_dir} away: it hides the right one" if hides else mend


def check_writing() -> Found:
    """What runs write can be written: a file is, and is deleted."""
    from .data import BUILD, FULL, WriteError, write_atomic

    probe, content = BUILD / f"doctor-probe-{os.getpid()}", b"can be written"  # as a class may share the folder
    made = [folder for folder in (BUILD, *BUILD.parents) if not os.path.exists(folder)]
    try:
        write_atomic(probe, content)
        if probe.read_bytes() != content:
            return "failure", f"{BUILD} gives back something else than was written", write_elsewhere()
    except WriteError as error:
        room = f"make room on its disk, or {write_elsewhere()}" if error.errno in FULL else write_elsewhere()
        return "failure", f"{BUILD} cannot be written ({os.strerror(error.errno) if error.errno else 'unknown error'})", room
    finally:
        with suppress(OSError):
            probe.unlink()
            for folder in made:
                folder.rmdir()
    return "ok", f"{BUILD} can be written", ""


def available_memory() -> float:
    """GB that programs may still take; in a container, of what it is allowed."""
    import psutil  # comes with ipykernel

    available = psutil.virtual_memory().available
    with suppress(OSError, ValueError, StopIteration):
        group = Path("/sys/fs/cgroup")
        limit, used = (int((group / f"memory.{name}").read_text()) for name in ("max", "current"))
        cached = next(int(line.split()[1]) for line in (group / "memory.stat").read_text().splitlines() if line.startswith("inactive_file "))
        available = min(available, limit - used + cached)
    return available / GB


def check_memory() -> Found:
    """A notebook fits."""
    available = available_memory()
    found = f"{available:.1f} GB available; a notebook takes up to {NOTEBOOK} GB"
    if available < LEAST_MEMORY:
        return "warning", found, CLOSE
    return "ok", found, ""


def check_disk() -> Found:
    """Where runs write there is room."""
    from .data import BUILD

    folder = next(folder for folder in (BUILD, *BUILD.parents) if os.path.exists(folder))
    free = shutil.disk_usage(folder).free / GB
    found, mend = f"{free:.1f} GB free for {BUILD}", f"make room on its disk, or write on another: {write_elsewhere()}"
    if free < LEAST_DISK:
        return "failure", f"{found}; at least {LEAST_DISK} GB are needed", mend
    if free < SCARCE_DISK:
        return "warning", f"{found}; a notebook with checkpoints may fill them", mend
    return "ok", found, ""


def check_training() -> Found:
    """A few steps of the course's network, from fresh weights, lower the risk."""
    from .data import load_pu
    from .risk import unsupervised_risk
    from .training import Settings, fit, new_model

    settings = Settings(STEPS, batch_unlabeled=32, warmup=1, lr=2e-3, ema=0.0)
    mend = "mend what failed above; if nothing else did: "
    try:
        risks, times = [], []
        for record in fit(new_model(), load_pu().unlabeled, unsupervised_risk, settings):
            risks.append(record.risk)
            times.append(time.perf_counter())
    except Exception as error:
        return "failure", f"it stopped: {one_line(error)}", mend + reinstall("torch", "torchvision")
    found = f"risk {risks[0]:.1f} -> {risks[-1]:.1f} in {STEPS} steps, {(STEPS - 1) / (times[-1] - times[0]):.1f} steps/s"
    if not sum(risks[-3:]) < sum(risks[:3]):
        return "failure", f"{found}: it did not fall", mend + reinstall("torch", "torchvision")
    return "ok", found, ""


def check_port() -> Found:
    """Which port JupyterLab will take; it needs none in particular."""
    ports = range(PORT, PORT + 5)  # it tries these, and then others by chance
    free = next((port for port in ports if _is_free(port)), None)
    if free == PORT:
        return "ok", f"{PORT} is free", ""
    return "ok", f"{PORT} is taken; JupyterLab takes {free or 'another'} and prints the address", ""


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        if os.name == "posix":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as JupyterLab does
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


CHECKS: dict[str, tuple[Callable[[], Found], bool]] = {  # name: the check, and whether it needs torch and pulib
    "Python": (check_python, False),
    "packages": (check_packages, False),
    "loading": (check_loading, False),
    "data": (check_data, True),
    "writing": (check_writing, True),
    "disk": (check_disk, True),
    "memory": (check_memory, False),
    "widgets": (check_widgets, False),
    "kernel": (check_kernel, False),
    "port": (check_port, False),
    "device": (check_device, True),
    "training": (check_training, True),
}


# ---------------------------------------------------------------------------------------------- verdict


def one_line(error: BaseException) -> str:
    """An error as one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def look(name: str) -> Check:
    """Make one check; an error in it is a failure of its own. What it prints goes to stderr."""
    try:
        with redirect_stdout(sys.stderr):
            return Check(name, *CHECKS[name][0]())
    except Exception as error:
        report = f"mend what failed above; if nothing else did, report this with the output of {python()} -m pulib.doctor --json"
        return Check(name, "failure", one_line(error), install() if isinstance(error, ImportError) else report)


def checks() -> Iterator[Check]:
    """Each check as it is made; those that need torch and pulib are passed over, with a warning, where these cannot be imported."""
    loads = True
    for name, (_, needs_pulib) in CHECKS.items():
        if needs_pulib and not loads:
            yield Check(name, "warning", "skipped, as pulib cannot be imported", "mend packages and loading first, then run the doctor again")
            continue
        check = look(name)
        loads = loads and (name != "loading" or check.status == "ok")
        yield check


def verdict(found: list[Check]) -> str:
    """All checks in one line."""
    failed, warned = ([check.name for check in found if check.status == status] for status in ("failure", "warning"))
    warnings = f"{len(warned)} warning{'s' if len(warned) > 1 else ''}: {', '.join(warned)}" if warned else ""
    if failed:
        also = f" ({warnings})" if warned else ""
        return f"{len(failed)} of {len(found)} checks failed: {', '.join(failed)}{also}. What to do stands above."
    if warned:
        return f"All that is needed is here, with {warnings}. What to do stands above."
    return f"All is well: {len(found)} of {len(found)} checks passed."


def row(check: Check, width: int) -> str:
    """A check as text, not wider than `width` but for its mend, which is to be copied."""
    mark = {"ok": "ok", "warning": "WARNING", "failure": "FAILURE"}[check.status]
    start = f"{mark:8} {check.name:9} "
    indent = " " * len(start)
    lines = textwrap.wrap(check.found, max(width, 60), initial_indent=start, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return "\n".join([*lines, f"{indent}-> {check.mend}"] if check.mend else lines)


def main(arguments: list[str] | None = None) -> int:
    """What `python -m pulib.doctor` runs; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m pulib.doctor", description="Is all that the course needs here and whole? Exit status 1 where it is not.")
    parser.add_argument("--json", action="store_true", help="one JSON object: verdict, ok, and checks with name, status, found and mend")
    as_json = parser.parse_args(arguments).json
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a console may lack a letter of a path
    found = []
    for check in checks():
        found.append(check)
        if not as_json:
            print(row(check, shutil.get_terminal_size((110, 24)).columns), flush=True)
    ok = all(check.status != "failure" for check in found)
    if as_json:
        print(json.dumps({"verdict": verdict(found), "ok": ok, "checks": [asdict(check) for check in found]}, indent=2))
    else:
        print(f"\n{verdict(found)}")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
