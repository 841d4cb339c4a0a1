"""Long runs: killed at any moment they go on exactly; signals save first; checkpoints by number; curves for TensorBoard."""

import itertools
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from pulib import training
from pulib.data import DataError
from pulib.risk import pu_risk, unsupervised_risk
from pulib.runs import Checkpoints, logged
from pulib.training import CheckpointError, Settings, fit, new_model, read_tensors

SCRIPT = Path(__file__).parent / "stopped_run.py"
IMAGES = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture(autouse=True)
def usual_signals():
    """As in a terminal: what runs in the background of a shell ignores SIGINT."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, signal.SIG_DFL if handler is None else handler)


def start(path: Path, steps: int, every: int = 1) -> subprocess.Popen:
    command = [sys.executable, str(SCRIPT), str(path), str(steps), str(every)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))


def content(path: Path) -> dict:
    tensors, facts = read_tensors(path.read_bytes(), path)
    return tensors | {"step": torch.tensor(facts["step"])}


def assert_same(one: dict, other: dict) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_run_that_is_killed_at_any_moment_goes_on_bit_for_bit(tmp_path):
    steps, whole = 120, tmp_path / "whole.checkpoint"
    assert start(whole, steps).wait() == 0
    killed, moments = tmp_path / "killed.checkpoint", torch.rand(5, generator=torch.Generator().manual_seed(1)).tolist()
    ends = []
    for moment in moments:
        run = start(killed, steps)
        run.stdout.readline()  # its first step is done
        time.sleep(0.2 * moment)
        run.kill()
        run.wait()
        ends.append(content(killed)["step"].item())  # whole, whenever it was killed
    assert 0 < ends[0] < steps and ends == sorted(ends)
    run = start(killed, steps)
    assert run.wait() == 0 and int(run.stdout.readline()) > 1  # it went on
    assert_same(content(whole), content(killed))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_the_last_step_first(tmp_path, number):
    path = tmp_path / "run.checkpoint"
    run = start(path, 10_000, every=10_000)
    try:
        shown = [int(run.stdout.readline()) for _ in range(3)]
        run.send_signal(number)
        shown += map(int, run.stdout.read().split())
        assert run.wait(timeout=60) == -signal.SIGTERM if number == signal.SIGTERM else "KeyboardInterrupt" in run.stderr.read()
    finally:
        run.kill()
    assert content(path)["step"].item() in (shown[-1], shown[-1] + 1)  # of a step that was cut there is no line


def settings(steps: int, **changes) -> Settings:
    return Settings(steps, batch_unlabeled=4, checkpoint_every=1000, **changes)


def test_leaving_the_loop_early_saves_and_gives_the_signals_back(tmp_path):
    path, before = tmp_path / "run.checkpoint", [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    records = fit(new_model((8, 16), T=50), IMAGES, unsupervised_risk, settings(10), checkpoint=path)
    for record in records:
        if record.step == 3:
            break
    records.close()
    assert content(path)["step"] == 3
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    assert [record.step for record in fit(new_model((8, 16), T=50), IMAGES, unsupervised_risk, settings(10), checkpoint=path)] == list(range(4, 11))


def test_an_error_in_a_step_saves_nothing(tmp_path):
    path, calls = tmp_path / "run.checkpoint", []

    def objective(loss_u, loss_s):
        calls.append(1)
        return loss_u.mean() * (float("nan") if len(calls) == 5 else 1.0)  # two calls describe the run

    with pytest.raises(FloatingPointError, match="step 3"):
        list(fit(new_model((8, 16), T=50), IMAGES, objective, settings(10), checkpoint=path))
    assert not path.exists()


def test_a_run_in_another_thread_trains_as_well(tmp_path):
    path, steps = tmp_path / "run.checkpoint", []
    thread = threading.Thread(target=lambda: steps.extend(r.step for r in fit(new_model((8, 16), T=50), IMAGES, unsupervised_risk, settings(2), checkpoint=path)))
    thread.start()
    thread.join()
    assert steps == [1, 2] and path.exists()


def test_runs_within_runs_all_save_and_the_signals_come_back(tmp_path):
    """Two runs side by side, of which the first ends first, and then an interrupt."""
    before, paths = signal.getsignal(signal.SIGINT), [tmp_path / f"{i}.checkpoint" for i in range(2)]
    runs = [fit(new_model((8, 16), T=50), IMAGES, unsupervised_risk, settings(steps), checkpoint=path) for steps, path in zip((2, 10), paths)]
    for record, _ in itertools.zip_longest(runs[1], runs[0]):
        if record.step == 5:
            break
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert [content(path)["step"].item() for path in paths] == [2, 5]
    runs[1].close()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) == before


def test_a_run_that_is_left_in_another_thread_saves(tmp_path):
    path = tmp_path / "run.checkpoint"
    records = fit(new_model((8, 16), T=50), IMAGES, unsupervised_risk, settings(10), checkpoint=path)
    next(records)
    thread = threading.Thread(target=records.close)
    thread.start()
    thread.join()
    assert content(path)["step"] == 1
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("times", [1, 2])
def test_an_interrupt_within_a_step_saves_that_step_and_a_second_one_does_not_wait(tmp_path, times):
    path = tmp_path / "run.checkpoint"

    def interrupted(loss_u, loss_s):
        if loss_u.requires_grad:
            for _ in range(times):
                signal.raise_signal(signal.SIGINT)
        return loss_u.mean()

    with pytest.raises(KeyboardInterrupt):
        list(fit(new_model((8, 16), T=50), IMAGES, interrupted, settings(10), checkpoint=path))
    if times == 1:
        assert content(path)["step"] == 1
    else:
        assert not path.exists()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def run_in(folder: Path, steps: int = 6, keep: int = 3) -> list[int]:
    changed = Settings(steps, batch_unlabeled=4, batch_sensitive=2, checkpoint_every=1)
    return [r.step for r in fit(new_model((8, 16), T=50), IMAGES[:12], lambda u, s: pu_risk(u, s, 0.2), changed, IMAGES[12:], Checkpoints(folder, keep))]


def test_the_newest_checkpoints_stay_and_the_run_goes_on_from_them(tmp_path):
    assert run_in(tmp_path) == [1, 2, 3, 4, 5, 6]
    names = [path.name for path in Checkpoints(tmp_path).newest()]
    assert names == ["step_00000006.checkpoint", "step_00000005.checkpoint", "step_00000004.checkpoint"]
    assert len(list(tmp_path.iterdir())) == 3
    whole = content(tmp_path / names[0])
    (tmp_path / names[0]).unlink()
    assert run_in(tmp_path) == [6]
    assert_same(content(tmp_path / names[0]), whole)


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(tmp_path):
    run_in(tmp_path)
    newest = Checkpoints(tmp_path).newest()
    newest[0].write_bytes(newest[0].read_bytes()[:-100])
    with pytest.warns(UserWarning, match="step_00000006.checkpoint is damaged and passed over"):
        assert run_in(tmp_path, keep=1) == [6]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_00000006.checkpoint", "step_00000006.damaged"]  # which takes no place
    for path in Checkpoints(tmp_path).newest():
        path.write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="step_00000006.checkpoint is corrupt"):
        run_in(tmp_path)
    assert (tmp_path / "step_00000006.checkpoint").exists()


def test_checkpoints_that_another_run_thins_out_are_not_damaged(tmp_path, monkeypatch, tried):
    """It ends between the look at the folder and the reading."""
    run_in(tmp_path, keep=2)
    whole = content(tmp_path / "step_00000006.checkpoint")
    (tmp_path / "step_00000006.checkpoint").unlink()
    read = training.read_file

    def thinned_out(path, *args):
        monkeypatch.setattr(training, "read_file", read)
        assert path.name == "step_00000005.checkpoint" and run_in(tmp_path, keep=1) == [6]
        return read(path, *args)

    monkeypatch.setattr(training, "read_file", thinned_out)
    assert run_in(tmp_path) == [6]  # not anew
    assert [path.name for path in tmp_path.iterdir()] == ["step_00000006.checkpoint"]
    assert_same(content(tmp_path / "step_00000006.checkpoint"), whole)
    tried("fault", "another run in the same folder deletes older checkpoints while this one begins", "it goes on from the newest")


def test_checkpoints_of_other_settings_are_refused_not_passed_over(tmp_path):
    run_in(tmp_path)
    with pytest.raises(CheckpointError, match="other settings"):
        run_in(tmp_path, steps=9)
    assert issubclass(CheckpointError, DataError) and training.CheckpointError is CheckpointError


def test_at_least_one_checkpoint_is_kept(tmp_path):
    with pytest.raises(ValueError, match="keep must be a whole number >= 1; got 0"):
        Checkpoints(tmp_path, 0)


# --------------------------------------------------------------------------------------------- TensorBoard


@pytest.fixture
def curves(tmp_path) -> Path:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed: pip install -e '.[scale]'")
    return tmp_path / "curves"


def run(steps: int, path: Path | None = None, objective=None, sensitive=None):
    return fit(new_model((8, 16), T=50), IMAGES, objective or unsupervised_risk, settings(steps, batch_sensitive=2), sensitive, checkpoint=path)


def shown(folder: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0}).Reload()


def steps_of(folder: Path) -> list[int]:
    return [point.step for point in shown(folder).Scalars("risk")]


def test_curves_and_drawings_can_be_read_back_and_the_records_pass_unchanged(curves):
    def pu_run():
        return run(7, objective=lambda u, s: pu_risk(u, s, 0.2), sensitive=IMAGES[:5] * 0.5)

    plain, drawn = list(pu_run()), torch.linspace(-1, 1, 2 * 64).view(2, 1, 8, 8)
    records = list(logged(pu_run(), curves, every=3, draw=lambda model: drawn, draw_every=5))
    assert [(r.step, r.risk, r.loss_u, r.loss_s) for r in records] == [(r.step, r.risk, r.loss_u, r.loss_s) for r in plain]
    for name in ("risk", "loss_u", "loss_s"):
        points = shown(curves).Scalars(name)
        assert [point.step for point in points] == [3, 6, 7]
        assert [point.value for point in points] == pytest.approx([getattr(records[step - 1], name) for step in (3, 6, 7)])
    (image,) = shown(curves).Images("drawings")
    assert (image.step, image.height, image.width) == (5, 12, 22) and image.encoded_image_string.startswith(b"\x89PNG")


def test_without_s_there_is_no_curve_of_it(curves):
    list(logged(run(2), curves, every=1))
    assert shown(curves).Tags()["scalars"] == ["risk", "loss_u"] and shown(curves).Tags()["images"] == []


def test_leaving_the_loop_ends_fit_saves_and_writes_the_last_step(tmp_path, curves):
    path = tmp_path / "run.checkpoint"
    for record in logged(run(10, path), curves, every=2):
        if record.step == 3:
            break
    assert content(path)["step"] == 3 and steps_of(curves) == [2, 3]


def test_a_point_is_in_the_file_at_once(curves):
    for record in logged(run(2), curves, every=1):
        assert steps_of(curves)[-1] == record.step


def test_a_drawing_that_fails_ends_fit_and_saves(tmp_path, curves):
    path = tmp_path / "run.checkpoint"

    def fail(model):
        raise RuntimeError("no drawing")

    inner = run(10, path)  # held, so that nothing but `logged` can close it
    with pytest.raises(RuntimeError, match="no drawing"):
        list(logged(inner, curves, every=2, draw=fail, draw_every=3))
    assert content(path)["step"] == 3 and steps_of(curves) == [2, 3]
    assert next(inner, None) is None


def test_a_run_that_goes_on_draws_no_part_of_its_curve_twice(tmp_path, curves):
    path = tmp_path / "run.checkpoint"
    for record in logged(run(8, path), curves, every=1):
        if record.step == 3:
            break
    early = path.read_bytes()
    for record in logged(run(8, path), curves, every=1):
        if record.step == 6:
            break
    path.write_bytes(early)  # as if it had been killed at step 6, after a checkpoint at step 3
    assert steps_of(curves) == [1, 2, 3, 4, 5, 6]
    assert [record.step for record in logged(run(8, path), curves, every=1)] == [4, 5, 6, 7, 8]
    assert steps_of(curves) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [record.step for record in logged(run(8, path), curves, every=1)] == [8]  # it had ended
    assert steps_of(curves) == [1, 2, 3, 4, 5, 6, 7, 8]


@pytest.mark.parametrize("rank", ["0", "1"])
def test_of_several_processes_the_first_writes(tmp_path, curves, monkeypatch, rank):
    monkeypatch.setenv("RANK", rank)
    path = tmp_path / "run.checkpoint"
    inner = run(10, path)
    for record in logged(inner, curves, every=1):
        if record.step == 2:
            break
    assert content(path)["step"] == 2 and next(inner, None) is None
    assert curves.exists() == (rank == "0")


@pytest.mark.parametrize("name", ["every", "draw_every"])
def test_steps_between_points_are_whole_numbers(tmp_path, name):
    with pytest.raises(ValueError, match=f"{name} must be a whole number >= 1; got 0"):
        next(logged(run(2), tmp_path / "curves", **{name: 0}))


def test_without_tensorboard_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ImportError, match=r"pip install 'pulib\[scale\]'"):
        next(logged(run(2), tmp_path))
