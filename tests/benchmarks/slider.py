"""How long does a move of the live slider take? In one run beside what it is made of.

    python tests/benchmarks/slider.py --json            # under a minute
    python tests/benchmarks/slider.py --json --smoke    # five moves, to see that it runs

"live" is 16 new digits at a new assumed prior, from the move to the HTML that the page gets (10 network calls, the judge, the
figure); "network" the 10 calls alone; "redraw" a plain matplotlib figure of the same 16 digits; "twin" a move of the slider of the
exact world. They take turns, so that a busy machine hits all alike. The last line compares: "live" may take 3 times "redraw" plus
"network". Times are milliseconds of this machine.
"""

import argparse
import io
import json
import time

import numpy as np
import torch
from matplotlib.figure import Figure

from pulib import diffusion, plots, toy
from pulib.data import load_pu
from pulib.evaluation import load_judge, ruler
from pulib.explorer import Explorer
from pulib.training import load_conditioned
from pulib.widgets import safe_html

CALLS, SHOWN = 10, 16


def redraw(images: torch.Tensor) -> bytes:
    """A plain matplotlib figure of 16 digits, as PNG."""
    figure = Figure(figsize=(3.2, 3.2))
    for axis, image in zip(figure.subplots(4, 4).flat, images):
        axis.imshow(image[0], cmap="gray_r", vmin=-1, vmax=1)
        axis.set_axis_off()
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=plots.DPI)
    return out.getvalue()


def twin(b: float, world: toy.World, schedule: diffusion.Schedule, start: torch.Tensor, at: torch.Tensor, square: torch.Tensor) -> tuple[plots.Picture, str]:
    """What the slider of the exact world draws."""
    exact = world.model(schedule, b)
    *_, end = diffusion.ddim_sampler(exact, start, schedule, steps=30, clip=False)
    bad = world.is_sensitive(end.xt)
    groups = {"normal": end.xt[~bad], "sensitive": end.xt[bad]}
    score = -exact(at, torch.full((len(at),), 200))
    colours = {"normal": plots.NORMAL, "sensitive": plots.SENSITIVE}
    return plots.twin({"b": (world.signed_density(square, b), score, groups)}, at, colours, "The exact world."), ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON lines")
    parser.add_argument("--smoke", action="store_true", help="five moves only")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    split, judge, model = load_pu("even"), load_judge(), load_conditioned("even")
    explorer = Explorer(model, split, judge, n=SHOWN, calls=CALLS, rounds=0)
    ruler(judge, split)  # measured once, before any move
    world, schedule = toy.ring_world(0.2), diffusion.linear_schedule()
    plane = (world, schedule, torch.randn(400, 2), plots.grid_points(2.1, 13), plots.grid_points(2.3, 100))
    noise = torch.randn(SHOWN, *split.unlabeled.shape[1:])

    def live(b: float) -> str:
        *_, frame = explorer.frames(b)
        return frame.picture.html(frame.caption)

    sides = {
        "live": live,
        "network": lambda b: [*diffusion.ddim_sampler(model.at(b), noise, model.schedule, CALLS)],
        "redraw": lambda b: redraw(explorer.at(b).images),
        "twin": lambda b: safe_html(lambda value: twin(value, *plane), b),
    }
    times: dict[str, list[float]] = {name: [] for name in sides}
    for i, b in enumerate(np.linspace(0, 0.3, 7 if args.smoke else 43)):
        for name, run in sides.items():
            start = time.perf_counter()
            run(float(b))
            if i >= 2:  # the first moves warm up
                times[name].append(1000 * (time.perf_counter() - start))
    rows = [{"side": name, "p50_ms": round(np.quantile(ms, 0.5), 1), "p95_ms": round(np.quantile(ms, 0.95), 1), "moves": len(ms)} for name, ms in times.items()]
    allowed = 3 * np.array(times["redraw"]) + np.array(times["network"])
    rows.append({"side": "live over 3 redraw + network", "p50": round(float(np.median(times["live"] / allowed)), 3), "threads": args.threads})
    for row in rows:
        print(json.dumps(row) if args.json else row)


if __name__ == "__main__":
    main()
