"""Open the course in JupyterLab: what `make lab` runs. Further arguments go to JupyterLab.

    python notebooks/start.py [--no-browser] [--port 9000] ...

It listens on this machine alone and asks for Jupyter's token. Where this folder cannot be written (a teacher's copy on a shared disk), the
notebooks are copied to ~/pu-course first, and what runs write goes there; nothing that is there already is touched.
"""

import os
import sys
from pathlib import Path

from install import writable

ROOT = Path(__file__).resolve().parent.parent


def own_folder(home: Path) -> Path:
    """A learner's own copy of the notebooks in `home`/pu-course; files that are there stay as they are.

    Raises:
        SystemExit: that folder cannot be written either.
    """
    mine = home / "pu-course"
    try:
        (mine / "notebooks").mkdir(parents=True, exist_ok=True)
        for source in sorted((ROOT / "notebooks").glob("*.ipynb")):
            target = mine / "notebooks" / source.name
            if not target.exists():
                part = target.with_suffix(f".{os.getpid()}.tmp")
                part.write_bytes(source.read_bytes())
                os.replace(part, target)
    except OSError as error:
        sys.exit(f"Neither {ROOT} nor {mine} can be written ({error.strerror}); set HOME to a folder of yours, or copy the course to one.")
    return mine


def main() -> None:
    folder = ROOT
    if not writable(ROOT / "notebooks"):
        folder = own_folder(Path.home())
        os.environ.setdefault("PULIB_BUILD", str(folder / "build"))
        print(f"{ROOT} cannot be written: your notebooks are in {folder / 'notebooks'}.", flush=True)
    os.chdir(folder)
    from jupyterlab.labapp import main as lab

    sys.exit(lab(["notebooks/01_ddpm.ipynb", "--ip=127.0.0.1", *sys.argv[1:]]))


if __name__ == "__main__":
    main()
