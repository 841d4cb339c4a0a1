"""Run an experiment of notebook 08 in full, with what it needs said first; the executed notebook goes into build/scale/.

    python notebooks/scale.py --list                              # all experiments and what they need
    python notebooks/scale.py paper-mnist --dry                   # what one needs, and what is missing
    python notebooks/scale.py paper-mnist --folder ~/images --download
    python notebooks/scale.py gpu --steps 2000 --arms oracle pu_sieved

A run that was stopped goes on from its checkpoints when it is started again. Its rows of results are written as the course's are, to
build/course/08_scale_up.results.json, and beside the notebook.
"""

import argparse
import shutil
import sys
from pathlib import Path

from build import HERE
from course import execute
from pulib import scale
from pulib.data import BUILD, DataError

SOURCE = HERE / "08_scale_up.ipynb"


def said(name: str, need: scale.Needs, here: float | None) -> str:
    """What an experiment needs, in lines."""
    one = need.chosen
    lines = [f"{name}: {len(one.arms)} methods, {one.seeds} run(s) of each, {one.settings['steps']:,} steps of {need.batch} images; {need.parameters / 1e6:.1f} M weights, {need.trained / 1e6:.1f} M trained"]
    lines += [f"  {row['device']:14} {row['time']:>7}   {row['memory']} at most{'' if row['fits'] != 'no' else ', does not fit'}" for row in need.rows(here)]
    return "\n".join([*lines, *(f"  {problem}" for problem in need.problems)])


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
    here, folder = scale.matrix_peak(), str(Path(args.folder).expanduser().resolve())
    try:
        for name in scale.EXPERIMENTS if args.list else [args.preset]:
            need = scale.needs(scale.experiment(name, args.steps, args.samples, args.seeds, " ".join(args.arms)), folder)
            print(said(name, need, here), flush=True)
    except (DataError, ValueError) as error:
        parser.error(str(error))
    if args.list or args.dry:
        return 0
    target = BUILD / "scale" / f"{args.preset}.ipynb"
    parameters = dict(preset=args.preset, folder=folder, download=args.download, steps=args.steps, n_samples=args.samples, seeds=args.seeds, arms=" ".join(args.arms))
    row = execute(SOURCE, target, parameters, timeout=None)
    print(f"{target}: {row['status']} after {row['seconds']:.0f} s")
    results = BUILD / "course" / f"{SOURCE.stem}.results.json"
    if row["status"] == "ok":
        shutil.copy(results, target.with_suffix(".results.json"))
    return int(row["status"] != "ok")


if __name__ == "__main__":
    sys.exit(main())
