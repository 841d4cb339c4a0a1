"""Set up the environment of the course, or bring it up to date: what `make setup` runs. Standard library only, as nothing is installed yet.

    python3 -I notebooks/install.py                # into .venv
    python3 -I notebooks/install.py --cpu          # without CUDA
    python3 -I notebooks/install.py --locked       # the very versions of requirements.lock, with their hashes
    python3 -I notebooks/install.py --lowest --venv .venv-lowest

Where all is as it should be, it does nothing and needs no network. What stops it is said in one sentence, with the mend; a second call goes on
where the first was stopped.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"
EXTRAS = "test,site"
SETUPTOOLS = "setuptools>=77"  # builds pulib; taken from the environment, so that a later call needs no network
CUDA = sys.platform == "linux"  # where the torch of PyPI brings CUDA along
# GB to download and on disk, as uv.lock and du said of the versions in requirements.lock on x86_64; without CUDA on Linux: plus torch's CPU wheel
DOWNLOAD, DISK = {True: 3.4, False: 0.5}, {True: 6.8, False: 2.0}


class Stop(SystemExit):
    """The end of the installation, with one sentence on stderr and exit status 1."""


def check_python(version: tuple) -> None:
    """Stop where Python is not one of those that the course is tested with."""
    if not (3, 10) <= tuple(version[:2]) < (3, 14):
        raise Stop(f"Python 3.10 to 3.13 is needed, {sys.executable} is {version[0]}.{version[1]}; try: make PYTHON=python3.12 setup")
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        name = f"python{version[0]}.{version[1]}-venv"
        raise Stop(f"{sys.executable} cannot make virtual environments, as its module ensurepip is missing; on Debian and Ubuntu: sudo apt-get install {name}") from None


def check_place(venv: Path, gigabytes: float) -> None:
    """Stop where the environment cannot be written, or does not fit."""
    folder = next(path for path in (venv, *venv.parents) if path.exists())
    if not folder.is_dir() or not writable(folder):
        raise Stop(f"{folder} cannot be written; name another place for the environment: make VENV=$HOME/pu-course-venv setup")
    free = shutil.disk_usage(folder).free / 1e9
    if free < gigabytes:
        raise Stop(f"The disk of {folder} is too full: {free:.1f} GB free, {gigabytes:.1f} GB needed; make room, or name another place: make VENV=/other/disk/venv setup")


def writable(folder: Path) -> bool:
    """Whether a file can be made in `folder`."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def announce(venv: Path, cuda: bool) -> None:
    """Say what will be downloaded, and how long that takes."""
    size, disk = DOWNLOAD[cuda], DISK[cuda]
    minutes = [max(1, round(size * 8000 / megabits / 60)) for megabits in (100, 20)]
    print(f"Setting up {venv}: about {size:.1f} GB to download, {disk:.1f} GB on disk.")
    print(f"That takes about {minutes[0]} min at 100 Mbit/s, {minutes[1]} min at 20 Mbit/s, and 2 to 4 min to unpack; less for what pip has kept.")
    if cuda:
        print("Most of it is CUDA, which only NVIDIA GPUs need; without one: make CPU=1 setup")
    sys.stdout.flush()


def python_of(venv: Path) -> Path:
    """The Python of a virtual environment."""
    return venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def works(python: Path) -> bool:
    """Whether this Python is there and has pip; not so where the making of the environment was stopped, or its Python is gone."""
    return python.exists() and not subprocess.run([str(python), "-m", "pip", "--version"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode


KINDS = ("cpu", "locked", "lowest", "latest")


def wanted(arguments: argparse.Namespace, stamp: Path) -> str:
    """What the environment is made of; where that differs from its stamp, it is brought up to date. Without options its kind stays."""
    if stamp.exists() and not any(getattr(arguments, kind) for kind in KINDS):
        for kind in stamp.read_text(encoding="utf-8").partition("\n")[0].split():
            setattr(arguments, kind, kind in KINDS)
    files = [ROOT / "pyproject.toml"] + ([LOCK] if arguments.locked else [])
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
    return f"{' '.join(kind for kind in KINDS if getattr(arguments, kind))}\n{digest}\n{ROOT}\n"


def run(*command: object) -> None:
    """Run a step; stop with advice where it fails."""
    status = subprocess.run([str(part) for part in command]).returncode
    if status:
        raise Stop(
            "The installation stopped; the reason is above. What was downloaded is kept: the same command goes on from there. "
            "It needs a network, once; behind a proxy: export HTTPS_PROXY=http://HOST:PORT first."
        )


def install(venv: Path, arguments: argparse.Namespace) -> None:
    """Install the packages, then pulib itself, so that its code is that of this folder."""
    python = python_of(venv)
    pip = [python, "-m", "pip", "install", "--disable-pip-version-check", *([] if sys.stdout.isatty() else ["--quiet"])]
    pulib = f"{ROOT}[{EXTRAS}]"
    if arguments.locked:
        run(*pip, "--require-hashes", "--requirement", LOCK)
        pulib = str(ROOT)
    else:
        run(*pip, SETUPTOOLS)
    if arguments.lowest:
        run(*pip, *subprocess.check_output([str(python), str(ROOT / "tests" / "lowest.py")], text=True).split())
    if arguments.cpu:
        run(*pip, "uv")
        pip = [python, "-m", "uv", "pip", "install", "--python", python, "--torch-backend", "cpu"]
    upgrade = ["--upgrade", "--upgrade-strategy", "eager"] if arguments.latest else []
    deps = ["--no-deps"] if arguments.locked else []
    if writable(ROOT):
        run(*pip, *upgrade, *deps, "--no-build-isolation", "--editable", pulib)
    else:
        install_beside(python, [*pip, *upgrade, *deps, "--no-build-isolation"], pulib.replace(str(ROOT), ""))


def install_beside(python: Path, pip: list, extras: str) -> None:
    """As an editable install, for a folder that cannot be written: what pulib needs is installed from a copy without code, and a path points here."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, folder)
        pyproject = Path(folder, "pyproject.toml")
        text = pyproject.read_text(encoding="utf-8").replace('packages = ["pulib", "pulib.exercises"]', "packages = []")
        pyproject.write_text(text, encoding="utf-8")
        run(*pip, folder + extras)
    site = subprocess.check_output([str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True).strip()
    Path(site, "pulib_here.pth").write_text(f"{ROOT}\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description="Set up the environment of the course.")
    parser.add_argument("--venv", default=".venv", help="folder of the virtual environment (default: .venv)")
    parser.add_argument("--cpu", action="store_true", help="without CUDA: 0.5 instead of 3.4 GB to download on Linux")
    parser.add_argument("--locked", action="store_true", help="the versions of requirements.lock, checked by their hashes")
    parser.add_argument("--lowest", action="store_true", help="the lowest versions that pyproject.toml admits")
    parser.add_argument("--latest", action="store_true", help="the newest versions that pyproject.toml admits")
    arguments = parser.parse_args()
    check_python(sys.version_info)
    venv = Path(os.path.abspath(os.path.expanduser(arguments.venv)))
    stamp = venv / ".pulib-installed"
    facts = wanted(arguments, stamp)
    if stamp.exists() and (stamp.read_text(encoding="utf-8") == facts or not writable(venv)):
        return
    cuda = CUDA and not arguments.cpu
    if stamp.exists():
        print(f"Bringing {venv} up to date.", flush=True)
    elif (venv / "pyvenv.cfg").exists():
        print(f"Going on with {venv}.", flush=True)
    else:
        check_place(venv, DISK[cuda])
        announce(venv, cuda)
    if stamp.exists():
        stamp.unlink()
    if not works(python_of(venv)):
        run(sys.executable, "-m", "venv", "--clear", venv)
    install(venv, arguments)
    stamp.write_text(facts, encoding="utf-8")
    print("Set up.", flush=True)


if __name__ == "__main__":
    main()
