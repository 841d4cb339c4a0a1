"""Run an experiment of notebook 08 in full, with what it needs said first; the executed notebook goes into build/scale/.

    python notebooks/scale.py --list                              # all experiments and what they need
    python notebooks/scale.py paper-mnist --dry                   # what one needs, and what is missing
    python notebooks/scale.py paper-mnist --folder ~/images --download
    python notebooks/scale.py gpu --steps 2000 --arms oracle pu_sieved

A run that was stopped (Ctrl-C and SIGTERM save first) goes on from its checkpoints when it is started again. Executed notebook and rows of
results lie in build/scale/, in a folder for each experiment with its settings.
"""

import argparse
import os
import signal
import sys
from pathlib import Path

import nbformat
import papermill
import psutil  # comes with ipykernel

from build import HERE
from course import errors
from pulib import scale
from pulib.data import BUILD, DataError

SOURCE = HERE / "08_scale_up.ipynb"


def said(name: str, need: scale.Needs, here: float | None) -> str:
    """What an experiment needs, in lines."""
    one = need.chosen
    lines = [f"{name}: {len(one.arms)} methods, {one.seeds} run(s) of each, {one.settings['steps']:,} steps of {need.batch} images; {need.parameters / 1e6:.1f} M weights, {need.trained / 1e6:.1f} M trained"]
    lines += [f"  {row['device']:14} {row['time']:>7}   about {row['memory']}{'' if row['fits'] != 'no' else ', does not fit'}" for row in need.rows(here)]
    return "\n".join([*lines, *(f"  {problem}" for problem in need.problems)])


def interrupt(*_: object) -> None:
    """Tell the kernel, which has no terminal, to stop: what trains there saves first, and the cell ends with an error."""
    for child in psutil.Process().children(recursive=True):
        child.send_signal(signal.SIGINT)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("preset", nargs="?", choices=list(scale.EXPERIMENTS))
    parser.add_argument("--list", action="store_true", help="say what all experiments need")
    parser.add_argument("--dry", action="store_true", help="say what it needs and what is missing, and end")
    parser.add_argument("--folder", default=str(BUILD / "scale"), help="where images lie or go to, and what takes long is kept")
    parser.add_argument("--download", action="store_true", help="fetch images that are missing")
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument("--samples", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=0)
    parser.add_argument("--arms", nargs="+", default=[])
    args = parser.parse_args()
    if args.preset is None and not args.list:
        parser.error("name an experiment, or --list")
    folder = str(Path(args.folder).expanduser().resolve())
    try:
        asked = {name: scale.experiment(name, args.steps, args.samples, args.seeds, " ".join(args.arms)) for name in (scale.EXPERIMENTS if args.list else [args.preset])}
        here = scale.matrix_peak()
        for name, chosen in asked.items():
            print(said(name, scale.needs(chosen, folder), here), flush=True)
    except (DataError, ImportError, ValueError) as error:
        parser.error(str(error))
    if args.list or args.dry:
        return 0
    out = BUILD / "scale" / f"{args.preset}_{scale.key(chosen).split('_')[-1]}"
    out.mkdir(parents=True, exist_ok=True)
    os.environ["PULIB_BUILD"] = str(out)  # where the notebook writes its rows
    parameters = dict(preset=args.preset, folder=folder, download=args.download, steps=args.steps, n_samples=args.samples, seeds=args.seeds, arms=" ".join(args.arms))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    try:
        papermill.execute_notebook(SOURCE, out / SOURCE.name, parameters, cwd=HERE, kernel_name="python3", log_output=False)
    except papermill.PapermillExecutionError as error:
        print(f"{out / SOURCE.name} ended with {error.ename}: {error.evalue}; what was trained is kept, and the same command goes on from there")
        return 1
    found = errors(nbformat.read(out / SOURCE.name, as_version=4))
    print(f"{out / SOURCE.name}: {'; '.join(found) or 'ok'}; rows of results in {out / 'course' / f'{SOURCE.stem}.results.json'}")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
