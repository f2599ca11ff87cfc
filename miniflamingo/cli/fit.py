"""``miniflamingo fit`` and ``validate``: LightningCLI around module and data."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import IO, Any

import lightning as L
import torch
import yaml
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import ProgressBar, RichProgressBar, TQDMProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console

from miniflamingo.data.datamodule import InterleavedData
from miniflamingo.data.mixture import MixtureKind, loss_weights
from miniflamingo.errors import UserError
from miniflamingo.files import write_whole
from miniflamingo.lock import hold
from miniflamingo.model.parameters import parameter_table
from miniflamingo.recipe.checks import check_recipe
from miniflamingo.recipe.run_folder import check_unused, is_first_rank, set_aside
from miniflamingo.terminal import as_markup, masked
from miniflamingo.training.callbacks.due_validation import DueValidation
from miniflamingo.training.callbacks.non_finite import SkipNonFinite
from miniflamingo.training.callbacks.preemption import Preemption
from miniflamingo.training.callbacks.random_state import RandomStates
from miniflamingo.training.callbacks.source_report import SourceReport
from miniflamingo.training.callbacks.summary import RunSummary
from miniflamingo.training.callbacks.vitals import Vitals
from miniflamingo.training.checkpoint import CheckpointFiles
from miniflamingo.training.lost_rank import tells_of_lost_rank
from miniflamingo.training.module import FlamingoModule
from miniflamingo.training.precision import bfloat16_warning

log = logging.getLogger(__name__)


def export_run(module: FlamingoModule, folder: Path, is_main_process: bool) -> None:
    """Write the trained model where ``MiniFlamingo.from_pretrained`` finds it, on every rank."""
    module.model.save_pretrained(folder, is_main_process)
    if is_main_process:
        module.processor.save_pretrained(folder)
        Console().print(as_markup(f"exported to {folder}"))


def weights_of_sources(sources: dict[str, Any], mixture: MixtureKind) -> dict[str, float]:
    """The weights of the losses, as parsed settings of the data have them."""
    # While it parses, jsonargparse wraps the fields of a dataclass within a dict.
    settings = {name: source.get("init_args", source) for name, source in sources.items()}
    return loss_weights({name: each["weight"] for name, each in settings.items()}, mixture)


def prepare_folder(run: Path, checkpoint: str | None, overwrite: bool) -> IO[str] | None:
    """Make sure that a run's folder is this run's alone, on its first rank.

    Args:
        run: ``trainer.default_root_dir``.
        checkpoint: ``--ckpt_path``, with which an earlier run goes on.
        overwrite: Whether to set an earlier run aside.

    Returns:
        The lock, which lasts as long as the process.

    Raises:
        UserError: If the folder holds an earlier run, or another process writes it.
    """
    if "://" in str(run):
        return None
    if checkpoint is None and not overwrite:
        check_unused(run)
    if not is_first_rank(os.environ):
        return None
    run.mkdir(parents=True, exist_ok=True)
    lock = hold(run)
    if checkpoint is None and overwrite:
        set_aside(run)
    return lock


class RunConfig(SaveConfigCallback):
    """Keeps the configuration of the run in its folder, other loggers and each checkpoint."""

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Save it, unless an earlier run is only looked at."""
        if stage != "fit":
            return
        super().setup(trainer, pl_module, stage)
        folder = trainer.log_dir  # all ranks must ask: it is sent round
        if trainer.is_global_zero and folder and "://" not in folder:
            file = Path(folder) / self.config_filename
            if file.is_file():
                write_whole(file, masked(file.read_text()))

    def save_config(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Give it to the loggers that do not write to the run's folder, on the first rank."""
        settings = yaml.safe_load(self.text())
        for logger in trainer.loggers:
            if not isinstance(logger, TensorBoardLogger | CSVLogger):
                logger.log_hyperparams(settings)

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """As the YAML text that ``--config`` reads."""
        checkpoint["config"] = self.text()

    def text(self) -> str:
        """The configuration as YAML, without the secrets in its urls."""
        return masked(self.parser.dump(self.config, skip_none=False))


class FlamingoCLI(LightningCLI):
    """Checks before it loads, links what is needed twice, exports at the end."""

    model: FlamingoModule
    lock: IO[str] | None = None

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """One processor, made by the model, used by the data; weights as the sources say."""
        parser.link_arguments("model.processor", "data.processor", apply_on="instantiate")
        sources = ("data.sources", "data.mixture")
        parser.link_arguments(sources, "model.source_weights", weights_of_sources)
        parser.add_lightning_class_args(SkipNonFinite, "non_finite")
        parser.add_argument(
            "--overwrite",
            action="store_true",
            help="move an earlier run in trainer.default_root_dir to its subfolder earlier/",
        )

    def _parse_ckpt_path(self) -> None:
        """Lightning looks for hyper-parameters in the checkpoint here; ours keep none."""

    def instantiate_classes(self) -> None:
        """Check what can be checked before anything is loaded."""
        subcommand = str(self.subcommand)
        config = self.config[subcommand]
        check_recipe(config, training=subcommand == "fit")
        if subcommand == "fit" and not config.trainer.fast_dev_run:
            run = Path(config.trainer.default_root_dir or "runs/unnamed")
            self.lock = prepare_folder(run, config.ckpt_path, config.overwrite)
            config.overwrite = False  # whoever trains by the saved file must say so again
        super().instantiate_classes()

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        """Log to TensorBoard and CSV in the run's folder, and to the loggers that the config names.

        Ours come first: Lightning puts checkpoints where the first logger writes, so ``--ckpt_path
        last`` finds them whoever else logs. Summary and curves are drawn from the CSV file.
        """
        settings = self._get(self.config_init, "trainer")
        named = settings.get("logger")
        if str(self.subcommand) == "validate":
            kwargs["logger"] = named = False  # what it finds is printed; the records are the run's
        if named is not False and not settings.get("fast_dev_run"):
            run = settings.get("default_root_dir") or "runs/unnamed"
            ours = [TensorBoardLogger(run, name="", version=""), CSVLogger(run, name="csv")]
            others = (
                named if isinstance(named, list) else [named] if named not in (None, True) else []
            )
            kwargs["default_root_dir"] = run
            kwargs["logger"] = [*ours, *others]
        callbacks = settings.get("callbacks") or []
        has_bar = any(isinstance(callback, ProgressBar) for callback in callbacks)
        if settings.get("enable_progress_bar") is not False and not has_bar:
            # Rich draws nothing into a file; lines in a cluster's log are better than silence.
            bar = RichProgressBar if sys.stdout.isatty() else TQDMProgressBar
            kwargs["callbacks"] = [*callbacks, bar(refresh_rate=5)]
        plugins = settings.get("plugins") or []
        kwargs["plugins"] = [*(plugins if isinstance(plugins, list) else [plugins])]
        kwargs["plugins"].append(CheckpointFiles())
        if SLURMEnvironment.detect():  # the batch script requeues, by the exit code of Preemption
            kwargs["plugins"].append(SLURMEnvironment(auto_requeue=False))
        try:
            return super().instantiate_trainer(**kwargs)
        except (ValueError, MisconfigurationException) as error:
            raise UserError(f"trainer: {error}") from error

    def before_fit(self) -> None:
        """Show what trains, and warn of arithmetic that this machine is slow in."""
        rank_zero_only(Console().print)(parameter_table(self.model.model))
        dtypes = {parameter.dtype for parameter in self.model.parameters()}
        mixed = str(self.trainer.precision).startswith("bf16")
        on_cpu = self.trainer.strategy.root_device.type == "cpu"
        if on_cpu and (mixed or torch.bfloat16 in dtypes) and (warning := bfloat16_warning()):
            rank_zero_only(log.warning)(warning)

    def before_validate(self) -> None:
        """Say whose loss it is where that is easily mistaken."""
        if self.config["validate"].ckpt_path is None:
            rank_zero_only(log.warning)(
                "no --ckpt_path: what is validated is the model before any training. Give "
                "--ckpt_path best, last or a file."
            )

    def after_fit(self) -> None:
        """Export, unless the run was interrupted or but a trial of a few steps."""
        if not self.trainer.interrupted and not self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            folder = Path(self.trainer.default_root_dir) / "model"
            export_run(self.model, folder, self.trainer.is_global_zero)


def run_command(arguments: list[str]) -> FlamingoCLI:
    """Run a subcommand of LightningCLI.

    Args:
        arguments: ``fit`` or ``validate`` and its options.

    Returns:
        What ran, with its trainer and its model.
    """
    return FlamingoCLI(
        FlamingoModule,
        InterleavedData,
        args=None if arguments == sys.argv[1:] else arguments,
        parser_kwargs={"allow_abbrev": False},
        seed_everything_default=0,
        save_config_callback=RunConfig,
        save_config_kwargs={"overwrite": True},
        trainer_defaults={
            "enable_model_summary": False,  # our own table says more
            "callbacks": [
                Vitals(),
                SourceReport(),
                RandomStates(),
                Preemption(),
                DueValidation(),
                RunSummary(),
            ],
        },
    )


def main(arguments: list[str]) -> None:
    """Show the package's messages, then run the command.

    Args:
        arguments: ``fit`` or ``validate`` and its options.

    Raises:
        SystemExit: With 75 if the run was told to stop and can go on (``Preemption``), with 1 if
            another rank is gone.
    """
    logging.basicConfig(format="%(message)s")
    logging.getLogger("miniflamingo").setLevel(logging.INFO)
    try:
        run_command(arguments)
    except RuntimeError as error:
        if not tells_of_lost_rank(error):
            raise
        # Not REQUEUE: whether the run can go on is for the exit code of the lost rank to say.
        rank = getattr(rank_zero_only, "rank", 0)
        sys.exit(
            f"miniflamingo {arguments[0]}: rank {rank} lost another rank, whose own output says "
            "why. Go on with the same command and --ckpt_path last.\n"
            f"({error})"
        )
