"""Execute the course through papermill into build/course/ and write build/course/summary.json.

    python notebooks/course.py           # all notebooks with their default parameters
    python notebooks/course.py 04        # those whose name starts with 04

papermill alone is green when a widget's callback raises, so its output is searched for errors in cells and in
widget state.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

import nbformat

from build import CELL_TIMEOUT, HERE, notebooks
from pulib.data import BUILD, write_atomic

COURSE = BUILD / "course"


def errors(notebook: nbformat.NotebookNode) -> list[str]:
    """Every error in a notebook's outputs, in its widget state, or shown by one of its sliders."""
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    state = notebook.metadata.get("widgets", {}).get("application/vnd.jupyter.widget-state+json", {}).get("state", {})
    found = []
    for model in state.values():
        outputs += model["state"].get("outputs", [])
        if 'role="alert"' in str(model["state"].get("value", "")):
            found.append(f"in a widget: {model['state']['value']}")
    return found + [f"{o['ename']}: {o['evalue']}" for o in outputs if o.get("output_type") == "error"]


def execute(source: Path, target: Path, parameters: dict) -> dict:
    """Run one notebook in a process of its own; its summary row, with status "ok" or the error."""
    target.parent.mkdir(parents=True, exist_ok=True)
    start = time.time()
    job = json.dumps([str(source), str(target), parameters, str(HERE), CELL_TIMEOUT])
    run = subprocess.run([sys.executable, "-c", _WORKER, job], capture_output=True, text=True)
    if run.returncode == 0:
        report = json.loads(run.stdout.splitlines()[-1])
    else:  # a worker that was killed says nothing
        report = {"error": run.stderr[-2000:] or f"the worker ended with exit status {run.returncode}", "peak_mb": None}
    problems = [report["error"]] if report["error"] else errors(nbformat.read(target, as_version=4))
    return {
        "notebook": source.stem,
        "seconds": round(time.time() - start, 1),
        "status": "; ".join(problems) or "ok",
        "peak_mb": report["peak_mb"],
    }


# The kernel is the worker's only child of weight, so the peak of its children is the kernel's peak.
_WORKER = """
import json, sys, warnings
import papermill
warnings.simplefilter("ignore")
source, target, parameters, folder, timeout = json.loads(sys.argv[1])
error = ""
try:
    papermill.execute_notebook(source, target, parameters, cwd=folder, kernel_name="python3",
                               execution_timeout=timeout, progress_bar=False)
except Exception as problem:
    error = f"{type(problem).__name__}: {problem}"
try:
    import resource
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / (1024**2 if sys.platform == "darwin" else 1024)
except ImportError:
    peak = None
print(json.dumps({"error": error, "peak_mb": peak and round(peak)}))
"""


def main(prefix: str = "") -> int:
    summary = []
    for path in notebooks(prefix):
        row = execute(path, COURSE / path.name, {})
        results = COURSE / f"{path.stem}.results.json"
        if row["status"] == "ok" and results.exists():
            row["results"] = json.loads(results.read_text(encoding="utf-8"))
        print(f"{row['notebook']:20} {row['seconds']:6.1f} s  {row['peak_mb']} MB  {row['status']}", flush=True)
        summary.append(row)
        write_atomic(COURSE / "summary.json", (json.dumps(summary, indent=2, ensure_ascii=False) + "\n").encode())
    return int(any(row["status"] != "ok" for row in summary))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
