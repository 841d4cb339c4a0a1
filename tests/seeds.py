"""Run every notebook with five other seeds, other priors and both kinds of digits, at full length; for authors, as it takes most of an hour.

    python tests/seeds.py               # all, into build/seeds/; make seeds does the same
    python tests/seeds.py 04 05         # those whose names start so

Each run must end without an error, in cells and in widgets, with the exercises unattempted. What the texts say of the outputs is not checked
here: tests/test_notebooks.py does for numbers; for words, read build/seeds/ beside the committed notebooks. Runs that went well are kept.
"""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "notebooks"))

from build import notebooks  # noqa: E402
from course import execute  # noqa: E402
from pulib.data import BUILD, write_atomic  # noqa: E402

OTHERS: dict[str, dict[str, list]] = {
    "01_ddpm": {"seed": [1, 2, 3, 4, 5], "normal": ["odd", "even", "odd", "even", "odd"], "train_steps": [1500, 1000, 2000, 1200, 1500]},
    "02_pu_risk": {"seed": [1, 2, 3, 4, 5], "prior": [0.05, 0.15, 0.4, 0.5, 0.6]},
    "03_negative_elbo": {"seed": [1, 2, 3, 4, 5], "prior": [0.05, 0.1, 0.15, 0.3, 0.4], "normal": ["odd", "even", "odd", "even", "odd"]},
    "04_pu_diffusion": {"seed": [1, 2, 3, 4, 5], "prior": [0.03, 0.06, 0.12, 0.15, 0.2], "normal": ["odd", "even", "odd", "even", "odd"]},
    "05_the_prior": {
        "seed": [1, 2, 3, 4, 5],
        "assumed": [0.0, 0.1, 0.15, 0.2, 0.3],
        "contamination": [0.02, 0.05, 0.15, 0.25, 0.4],
        "normal": ["odd", "even", "odd", "even", "odd"],
    },
    "06_one_object": {
        "seed": [1, 2, 3, 4, 5],
        "arm": ["pu_capped", "filter", "pu_sieved", "guidance", "pu_paper"],
        "normal": ["odd", "even", "odd", "even", "odd"],
    },
    "07_failure_museum": {"seed": [1, 2, 3, 4, 5], "steps": [60, 40, 80, 60, 60]},
    "08_scale_up": {"seeds": [1, 2, 1, 2, 1], "n_samples": [60, 100, 150, 80, 120]},
}


def runs(stem: str) -> list[dict]:
    """The five parameter sets of a notebook."""
    others = OTHERS[stem]
    return [{name: values[i] for name, values in others.items()} for i in range(5)]


def main(*prefixes: str) -> int:
    folder = BUILD / "seeds"
    failed = 0
    for i in range(5):  # the first seed of all notebooks, then the next
        for path in notebooks():
            if prefixes and not path.stem.startswith(prefixes):
                continue
            target, parameters = folder / f"{path.stem}_{i + 1}.ipynb", runs(path.stem)[i]
            done = target.with_suffix(".json")
            if not done.exists() or json.loads(done.read_text(encoding="utf-8"))["status"] != "ok":
                row = execute(path, target, parameters) | {"parameters": parameters}
                write_atomic(done, json.dumps(row, indent=2).encode())
            row = json.loads(done.read_text(encoding="utf-8"))
            failed += row["status"] != "ok"
            print(f"{target.stem:22} {row['seconds']:6.1f} s  {row['status']:3}  {parameters}", flush=True)
    print(f"{failed} of the runs failed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
