"""What the project promises outside its code: environments in step, manifest complete, benchmarks that run."""

import json
import re
import runpy
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import pytest
import yaml
from conftest import unit

from pulib import data, evaluation, prior, rivals
from pulib.data import DATA, manifest, read_verified
from pulib.evaluation import load_results

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest brings it along where Python does not

ROOT = Path(__file__).resolve().parent.parent
BENCHMARKS = ROOT / "tests" / "benchmarks"
SHARED = [(module, name, lru_cache(getattr(module, name))) for module, name in ((data, "load_pu"), (evaluation, "load_judge"), (rivals, "sieve"))]
CONDA_NAMES = {"pytorch": "torch", "matplotlib-base": "matplotlib"}


def split_requirement(text: str) -> tuple[str, str]:
    name, bounds = re.fullmatch(r"([A-Za-z0-9_-]+) *(.*)", text.strip()).groups()
    return CONDA_NAMES.get(name, name), bounds.replace(" ", "")


def test_environment_yml_has_the_packages_of_pyproject():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    conda = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    extras = project["optional-dependencies"]
    ours = dict(map(split_requirement, project["dependencies"] + extras["test"] + extras["site"]))
    theirs = dict(split_requirement(line) for line in conda if isinstance(line, str))
    by_pip = next(entry["pip"] for entry in conda if isinstance(entry, dict))
    assert theirs.pop("python") == project["requires-python"]
    assert theirs.pop("pip") == ""
    assert by_pip[0] == "-e ."
    assert theirs | dict(map(split_requirement, by_pip[1:])) == ours


def test_every_data_file_is_in_the_manifest_with_its_command_and_intact():
    files = {p.relative_to(DATA).as_posix() for folder in ("", "weights", "results") for p in (DATA / folder).glob("*.*")}
    listed = manifest()
    assert files - {"README.md", "manifest.json"} == listed.keys()
    for name in listed:
        read_verified(name)
        assert (ROOT / listed[name]["command"].split()[1]).exists()


def test_code_is_clean():
    run = subprocess.run([sys.executable, "-m", "ruff", "check", "."], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout


def test_tests_of_a_file_stay_on_one_worker_and_runs_of_notebooks_are_spread():
    assert "--dist loadfile" in (ROOT / "Makefile").read_text(encoding="utf-8")  # which conftest.py changes
    assert unit("tests/test_site.py::test_a") == unit("tests/test_site.py::test_b[x]") != unit("tests/test_browser.py::test_a")
    assert unit("tests/test_notebooks.py::test_papermill[01_ddpm]") != unit("tests/test_notebooks.py::test_papermill[02_pu_risk]")


@pytest.mark.parametrize("normal", ["even", "odd"])
def test_digits_of_the_model_trained_on_normal_images_are_clean(normal):
    assert manifest()[f"weights/oracle_{normal}.safetensors"]["metrics"]["confident"] >= 0.9


def test_metrics_in_the_readme_of_the_data_are_those_of_the_manifest():
    text = (DATA / "README.md").read_text(encoding="utf-8")
    for name, entry in manifest().items():
        metrics = entry.get("metrics", {})
        if "nsr" in metrics:
            numbers = f"{metrics['nsr']:.3f} | {metrics['frechet']:.2f} | {metrics['class_tv']:.3f} | {metrics['confident']:.3f}"
            assert f"`{name}` | {numbers} |" in text
    assert f"{manifest()['weights/judge.safetensors']['metrics']['accuracy_unseen_digits']:.2%}" in text


@pytest.mark.parametrize("name", ["README.md", "data/README.md", *(f"notebooks/{p.name}" for p in (ROOT / "notebooks").glob("*.ipynb"))])
def test_nothing_is_left_to_fill_in(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    if name.endswith(".ipynb"):
        text = "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"])
    assert not re.search(r"\b(T0\d|RESULTS|METRICS|VERDICT|TODO)\b", text)


@pytest.mark.parametrize("normal", ["even", "odd"])
def test_committed_table_shows_the_effect(normal):
    rows = {row["arm"]: row for row in load_results("04_pu_diffusion") if row["split"] == normal}
    assert rows.keys() == {"unsupervised", "supervised", "pu", "oracle"}
    assert all(row["n"] >= 2000 and row["seeds"] >= 3 for row in rows.values())
    assert rows["oracle"]["nsr"] >= 0.97
    assert abs(rows["unsupervised"]["nsr"] / rows["oracle"]["nsr"] - 10 / 11) < 0.03
    assert abs(rows["pu"]["nsr"] - rows["oracle"]["nsr"]) <= 0.015
    assert rows["pu"]["frechet"] <= 1.10 * rows["oracle"]["frechet"]
    for row in rows.values():
        ratio, low, high = row["frechet_ratio"]
        assert low <= ratio <= high and abs(ratio - row["frechet"] / rows["oracle"]["frechet"]) < 1e-3
        assert sum(row["digits_read"]) == row["n"]
    assert rows["pu"]["frechet"] < 0.6 * rows["unsupervised"]["frechet"]


def test_readme_table_is_the_committed_one():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for row in load_results("04_pu_diffusion"):
        assert f"{row['nsr']:.3f} [{row['nsr_low']:.3f}, {row['nsr_high']:.3f}] | {row['frechet']:.2f}" in text


def test_readme_names_only_files_that_exist():
    for name in ("README.md", "data/README.md"):
        for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / name).read_text(encoding="utf-8")):
            assert target.startswith("http") or (ROOT / name).parent.joinpath(target).exists(), target


@pytest.fixture
def benchmark(tmp_path, monkeypatch, capsys):
    """A call that runs the script of a benchmark with --smoke and more arguments, in this process, where torch is loaded; its rows."""
    monkeypatch.setattr(data, "BUILD", tmp_path)
    monkeypatch.syspath_prepend(BENCHMARKS)
    for module, name, made_once in SHARED:
        monkeypatch.setattr(module, name, made_once)
    for name in ("STEPS", "COPIES"):  # --smoke changes them
        monkeypatch.setattr(prior, name, getattr(prior, name))

    def run(script: str, *arguments: str) -> list[dict]:
        monkeypatch.setattr(sys, "argv", [script, "--json", "--smoke", *arguments])
        runpy.run_path(str(BENCHMARKS / script), run_name="__main__")
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return run


def test_benchmark_runs_on_a_small_scale(benchmark):
    rows = benchmark("pu_table.py", "--splits", "even")
    assert [row["arm"] for row in rows] == ["oracle", "pu", "supervised", "unsupervised"]


def test_benchmark_of_the_prior_runs_on_a_small_scale(benchmark):
    methods = [row["method"] for row in benchmark("prior_estimation.py")]
    assert methods == ["corrected_bin", "best_bin", "best_bin_round_1", "elkan_noto", "pulearn_histogram", "pulearn_scar_em"]


def test_benchmark_of_tracking_runs_on_a_small_scale(benchmark):
    assert [(row["arm"], row["assumed"]) for row in benchmark("prior_tracking.py")] == [
        ("oracle", 0), ("pu", 0.09091), ("distilled", 0), ("distilled", 0.02), ("risk", 0), ("risk", 0.02), ("wide", 0), ("wide", 0.1)
    ]  # fmt: skip


def test_benchmark_of_the_estimators_runs_on_a_small_scale(benchmark, tmp_path):
    arms = ["oracle", "filter", "pu_sieved", "rejection", "guidance", "safe_denoiser"]
    arguments = ["estimators.py", "--splits", "even", "--seeds", "0", "--arms", *arms]
    rows = benchmark(*arguments)
    assert [row["arm"] for row in rows] == arms and all(row["n"] == 16 for row in rows)
    assert [row["cost"]["calls"] for row in rows] == [1, 1, 1, 1.1, 3, 2]
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "estimators_smoke").glob("*.npz")}
    assert len(files) == len(arms)
    assert benchmark(*arguments) == rows  # draws nothing
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "estimators_smoke").glob("*.npz")} == files


def test_benchmark_from_scratch_trains_all_arms_on_a_small_scale(benchmark, capsys):
    arguments = ["estimators.py", "--start", "scratch", "--splits", "even", "--seeds", "0", "--arms"]
    rows = {row["arm"]: row for row in benchmark(*arguments, "oracle", "pu_paper", "pu_sieved", "pu_pushed")}
    assert rows.keys() == {"oracle", "pu_paper", "pu_sieved", "pu_pushed"} and all(row["cost"]["steps"] == 4 for row in rows.values())
    with pytest.raises(SystemExit, match="2"):
        benchmark(*arguments, "guidance")
    assert "only go with --start tuned" in capsys.readouterr().err


def test_benchmark_of_the_labels_runs_on_a_small_scale(benchmark):
    for more, expected in ((["--labels", "10"], [0, 10, 10]), (["--biased"], [0, 120, 120])):
        rows = benchmark("label_efficiency.py", "--arms", "filter", "pu_paper", "--seeds", "0", *more)
        assert [row["labels"] for row in rows] == expected


def test_benchmark_of_the_calls_runs_on_a_small_scale(benchmark):
    rows = benchmark("sampling_cost.py", "--arms", "oracle")
    assert rows[0]["solver"] == "DDPM" and rows[0]["ratio"] == [1.0, 1.0, 1.0] and len(rows) == 13


def test_benchmark_of_the_museum_runs_on_a_small_scale(benchmark, tmp_path):
    rows = benchmark("museum.py", "--seeds", "0")
    assert {row["room"] for row in rows} == set(range(1, 11)) and all(len(runs) == 1 for row in rows for runs in row["values"].values())
    settings = {(row["room"], row["setting"]) for row in rows}
    committed = {(row["room"], row["setting"]) for row in load_results("07_failure_museum")}
    shorter = {(room, name) for room, name in committed if room == 7 or name.startswith("estimated")}  # runs are shorter, and no prior is estimated
    assert committed - shorter <= settings


@pytest.mark.parametrize("normal", ["even", "odd"])
def test_committed_table_of_the_estimators_keeps_what_is_said_of_it(normal):
    rows = {row["arm"]: row for row in load_results("06_estimators_tuned") if row["split"] == normal}
    several = {"guidance", "safe_denoiser"} if normal == "odd" else set()  # need several networks or images, and were run on even digits only
    assert rows.keys() == rivals.ESTIMATORS.keys() - several and all(row["n"] >= 5000 and row["seeds"] >= 3 for row in rows.values())
    ours, oracle = rows.pop("pu_pushed"), rows.pop("oracle")
    assert ours["nsr"] >= max(0.98, oracle["nsr"] - 0.01) and ours["frechet_ratio"][0] <= 1.05
    for row in rows.values():
        assert ours["nsr"] > row["nsr"] or ours["frechet"] < row["frechet"], row["arm"]  # none is better in both


@pytest.mark.parametrize("normal", ["even", "odd"])
def test_committed_runs_from_scratch_keep_what_is_said_of_them(normal):
    rows = {row["arm"]: row for row in load_results("06_estimators_scratch") if row["split"] == normal}
    paper, ours, oracle = rows["pu_paper"], rows["pu_pushed"], rows["oracle"]
    assert paper["story"]["loss_s"][-1] > 3 * paper["story"]["loss_u"][-1] and paper["frechet_ratio"][0] > 1.5  # it ran away
    assert ours["nsr"] >= max(0.98, oracle["nsr"] - 0.01) and ours["frechet_ratio"][0] <= 1.05


def test_committed_numbers_of_labels_keep_what_is_said_of_them():
    found = {(row["labels"], row["arm"]): row for row in load_results("06_label_efficiency")}
    for labels in (10, 25, 50, 100, 200):
        ours, others = found[labels, "pu_pushed"], [found[labels, arm] for arm in ("filter", "pu_paper")]
        assert ours["n"] >= 5000 and ours["seeds"] >= 3
        assert all(ours["nsr"] > row["nsr"] and ours["frechet"] < row["frechet"] for row in others)
    for few in (10, 25):  # the intervals overlap
        assert found[few, "pu_paper"]["nsr_high"] > found[few, "filter"]["nsr_low"] and found[few, "filter"]["nsr_high"] > found[few, "pu_paper"]["nsr_low"]


def test_benchmark_of_the_slider_runs_on_a_small_scale(benchmark):
    rows = {row["side"]: row for row in benchmark("slider.py")}
    assert {"live", "network", "redraw", "twin"} <= rows.keys() and rows["live"]["p50_ms"] > rows["network"]["p50_ms"]


@pytest.mark.parametrize("normal", ["even", "odd"])
def test_committed_estimates_of_the_prior_are_close(normal):
    rows = [row for row in load_results("05_prior_estimation") if row["split"] == normal]
    ours = [row for row in rows if row["method"] == "corrected_bin"]
    assert len(ours) == 25 and len({row["prior"] for row in ours}) == 5
    assert sum(abs(row["error"]) for row in ours) / 25 <= 0.015
    for row in rows:
        assert (row["estimate"] is None) == (row["failed"] is not None)  # a collapse is no number
        assert row["estimate"] is None or 0 <= row["estimate"] < 1
