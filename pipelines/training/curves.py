"""The curves of a training as one picture: losses, k-NN, effective rank, gradients, rate."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from curation import storage
from curation.errors import ConfigError
from curation.packages import needing
from pretrain.metrics import read_metrics

SMOOTHING = 40  # the running mean takes in this share of the steps: one in 40
TERMS = ("dino_local", "dino_global", "ibot", "koleo", "gram", "features")
PANEL_INCHES = (4.6, 3.0)
MAX_SQUARE = 4  # panels that stand two by two

Record = dict[str, Any]  # a line of metrics.jsonl
Draw = Callable[[Any, list[Record]], None]  # on the axes of matplotlib


def write_curves(run_dir: str) -> str:
    """Draw `RUN_DIR/metrics.jsonl` into `RUN_DIR/curves.png`; returns the path of the picture.

    Raises:
        ConfigError: when there is no training, or one without a step, or matplotlib is not installed.
        ExecutorError: when the file system refuses; a picture that is there stays.
    """
    records = read_metrics(Path(run_dir))
    steps = [record for record in records if "loss" in record]
    if not steps:
        raise ConfigError(
            f"There is no training to draw in {run_dir}",
            got="no step in metrics.jsonl",
            expected="the run_dir of `lvd pretrain`, or of a student of `lvd distill`",
        )
    # Drawn without a screen. Imported here: it takes a second, which no other command shall wait for.
    with needing("The curves are drawn by matplotlib", install="pip install 'lvd[train]'"):
        from matplotlib.figure import Figure

    drawn = _panels(records, steps)
    columns = 3 if len(drawn) > MAX_SQUARE else 2
    rows = -(-len(drawn) // columns)
    figure = Figure(figsize=(columns * PANEL_INCHES[0], rows * PANEL_INCHES[1]), layout="constrained")
    panels = list(figure.subplots(rows, columns).flat)
    for (draw, records), axes in zip(drawn, panels, strict=False):
        draw(axes, records)
    for axes in panels[len(drawn) :]:
        axes.remove()
    target = Path(run_dir) / "curves.png"
    drawn_picture = io.BytesIO()
    figure.savefig(drawn_picture, dpi=110, format="png")
    storage.publish_bytes(str(target), drawn_picture.getvalue(), replace=True)
    return str(target)


def _panels(records: list[Record], steps: list[Record]) -> list[tuple[Draw, list[Record]]]:
    """What is drawn of what; a training that measured nothing has no panel of what it would have measured."""
    looks = [record for record in records if record.get("rank_me") is not None]
    panels: list[tuple[Draw, list[Record]]] = [
        (_draw_total, steps),
        (_draw_terms, steps),
        (_draw_knn, [look for look in records if _has_knn(look)]),
        (_draw_rank, looks),
        (_draw_gradients, steps),
        (_draw_rate, steps),
    ]
    return [(draw, shown) for draw, shown in panels if shown]


def _has_knn(look: Record) -> bool:
    return any("knn_" in name and look[name] is not None for name in look)


def _draw_total(axes: Any, steps: list[Record]) -> None:
    _line(axes, steps, "loss", label="total")
    skipped = [record["step"] for record in steps if record.get("skipped")]
    for step in skipped:
        axes.axvline(step, color="tab:red", linewidth=0.8)
    _finish(axes, f"loss ({len(skipped)} steps not taken)" if skipped else "loss, as minimised")


def _draw_terms(axes: Any, steps: list[Record]) -> None:
    for term in (term for term in TERMS if any(term in record for record in steps)):
        _line(axes, steps, term, label=term.replace("_", " "))
    _finish(axes, "its terms, with their weights")


def _draw_knn(axes: Any, looks: list[Record]) -> None:
    names = sorted({name for look in looks for name in look if name.startswith("knn_")})
    for name in names:
        points = [(look["step"], 100 * look[name]) for look in looks if look.get(name) is not None]
        [drawn] = axes.plot(*zip(*points, strict=True), marker=".", label=f"k = {name.removeprefix('knn_')}")
        # What is distilled from is measured once.
        for above in (look[f"teacher_{name}"] for look in looks if f"teacher_{name}" in look):
            axes.axhline(100 * above, color=drawn.get_color(), linestyle="--", label="its teacher")
    _finish(axes, "k-NN accuracy of what is learned, %")


def _draw_rank(axes: Any, looks: list[Record]) -> None:
    axes.plot([look["step"] for look in looks], [look["rank_me"] for look in looks], marker=".")
    axes.set_ylim(0, 1.05 * max((look["rank_me"] for look in looks), default=1.0))
    _finish(axes, "RankMe (effective rank of the features)")


def _draw_gradients(axes: Any, steps: list[Record]) -> None:
    for name in (name for name in steps[0] if name.startswith("grad_norm_")):
        _line(axes, steps, name, label=name.removeprefix("grad_norm_").replace("_", " "))
    axes.set_yscale("log")
    _finish(axes, "gradient norm before clipping")


def _draw_rate(axes: Any, steps: list[Record]) -> None:
    _line(axes, steps, "images_per_s", label="images/s")
    axes.set_ylim(bottom=0)
    waiting = axes.twinx()
    _line(waiting, steps, "data_wait", label="share of time waiting for data", color="tab:orange")
    waiting.set_ylim(0, 1)
    waiting.legend(loc="lower right", fontsize=7)
    _finish(axes, "images/s (left), waiting for data (right)")


def _line(axes: Any, steps: list[Record], name: str, **style: Any) -> None:
    """A running mean, and the single steps faintly behind it."""
    values = np.array(
        [np.nan if record.get(name) is None else record[name] for record in steps], dtype=np.float64
    )
    at = [record["step"] for record in steps]
    (drawn,) = axes.plot(at, running_mean(values, max(1, len(values) // SMOOTHING)), **style)
    axes.plot(at, values, color=drawn.get_color(), alpha=0.2, linewidth=0.5)


def _finish(axes: Any, title: str) -> None:
    axes.set_title(title, fontsize=9)
    axes.set_xlabel("step", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(fontsize=7)


def running_mean(values: Float[np.ndarray, "n"], width: int) -> Float[np.ndarray, "n"]:
    """The mean of each value and up to `width` − 1 before it; what is not a number is left out."""
    known = np.isfinite(values)
    sums = np.cumsum(np.where(known, values, 0.0))
    counts = np.cumsum(known)
    before = np.maximum(np.arange(len(values)) - width, -1)
    total = sums - np.where(before >= 0, sums[before], 0.0)
    num = counts - np.where(before >= 0, counts[before], 0)
    means = np.full(len(values), np.nan)
    np.divide(total, num, out=means, where=num > 0)
    return means
