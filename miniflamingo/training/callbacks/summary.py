"""One page about a run: ``summary.md`` and ``curves.png`` in its folder, however it ends."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path

import lightning as L
import matplotlib
from lightning.pytorch.trainer.states import TrainerFn
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from miniflamingo.training.logs import Curve, read_curves

log = logging.getLogger(__name__)

Curves = Mapping[str, Curve]

PANELS = {
    "loss": ("train/loss/", "val/loss"),
    "tanh of the gates": ("gate/",),
    "gradient norms": ("grad_norm/",),
    "a second": ("train/tokens_per_s", "train/images_per_s"),
}
"""Title of a panel of the picture -> beginnings of the names of what it shows."""


class RunSummary(L.Callback):
    """Writes the page at every validation and at the end, with how the run ended.

    A run that is killed leaves the page of its last validation, which says so.
    """

    def __init__(self) -> None:
        self.since = time.perf_counter()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self.since = time.perf_counter()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write what there is so far."""
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self.write(trainer, "still running when this was written, or killed since")

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write that it came to its end."""
        self.write(trainer, "came to its end")

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Write what ended it."""
        if isinstance(exception, SystemExit):
            reason = f"told to stop (exit code {exception.code})"
        else:
            reason = f"{type(exception).__name__}: {exception}"
        try:
            self.write(trainer, f"ended early: {reason}")
        except OSError as error:  # must not hide what ended the run: a full disk does both
            log.warning("cannot write summary.md of %s: %s", trainer.default_root_dir, error)

    def write(self, trainer: L.Trainer, ending: str) -> None:
        """Write page and picture, on the first rank, of all that has been logged."""
        run = Path(trainer.default_root_dir)
        if not trainer.is_global_zero or not trainer.loggers:
            return
        for logger in trainer.loggers:
            logger.save()
        curves = read_curves(run, "")
        if not curves:
            return
        draw_curves(curves, run / "curves.png")
        steps = f"step {trainer.global_step}"
        if trainer.max_steps > 0:
            steps += f" of {trainer.max_steps}"
        minutes = (time.perf_counter() - self.since) / 60
        page = summary_page(run.name, f"{ending}, at {steps}, after {minutes:.1f} minutes", curves)
        (run / "summary.md").write_text(page)


def summary_page(name: str, ending: str, curves: Curves) -> str:
    """The page as Markdown.

    Args:
        name: Of the run.
        ending: How it ended, where and when.
        curves: All that was logged, by name.
    """
    lines = [f"# {name}", "", f"{ending[0].upper()}{ending[1:]}.", ""]
    lines += ["| figure | first | last | lowest | at step |", "| --- | ---: | ---: | ---: | ---: |"]
    for title in sorted(curves):
        if title in ("epoch", "step"):
            continue
        curve = curves[title]
        step, lowest = min(curve, key=lambda point: point[1])
        first, last = curve[0][1], curve[-1][1]
        lines.append(f"| {title} | {first:.4g} | {last:.4g} | {lowest:.4g} | {step} |")
    lines += ["", "![curves](curves.png)", ""]
    lines += ["Recipe: config.yaml. Checkpoints: checkpoints/. Exported model: model/."]
    return "\n".join(lines) + "\n"


def draw_curves(curves: Curves, file: Path) -> None:
    """Draw losses, gates, gradient norms and speed over steps.

    Args:
        curves: All that was logged, by name.
        file: PNG to write.
    """
    figure = Figure(figsize=(11, 7), dpi=90)
    for axes, (title, beginnings) in zip(figure.subplots(2, 2).flat, PANELS.items(), strict=True):
        shown = {name: curve for name, curve in curves.items() if name.startswith(beginnings)}
        shown = {name: curve for name, curve in shown.items() if "by_place" not in name}
        draw_panel(axes, shown, title)
    figure.tight_layout()
    figure.savefig(file)


def draw_panel(axes: Axes, curves: Curves, title: str) -> None:
    """Draw some curves into one panel, those of gates from dark to light."""
    colours = matplotlib.colormaps["viridis"]
    for place, (name, curve) in enumerate(sorted(curves.items())):
        steps, values = zip(*curve, strict=True)
        style = "--" if "swapped" in name or "/ffw/" in name else "-"
        colour = colours(0.9 * place / max(1, len(curves) - 1))
        axes.plot(steps, values, style, color=colour, label=name, linewidth=1.2)
    axes.set(title=title, xlabel="step")
    axes.spines[["top", "right"]].set_visible(False)
    if curves:
        axes.legend(frameon=False, fontsize=7)
