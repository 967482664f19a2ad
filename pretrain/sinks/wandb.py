"""Weights & Biases: a run on its server, or in a folder that `wandb sync` sends there."""

from collections.abc import Mapping

from pretrain.sinks.config import WandbConfig
from pretrain.sinks.sink import Told


class WandbSink:
    """Writes numbers by step, and the config. No code, package list or host is sent along, and no output."""

    def __init__(self, config: WandbConfig, told: Told) -> None:
        import wandb

        settings = wandb.Settings(
            console="off",
            silent=True,
            disable_git=True,
            disable_code=True,
            x_disable_stats=True,
            x_disable_machine_info=True,
            x_save_requirements=False,
        )
        self._run = wandb.init(
            project=config.project,
            entity=config.entity,
            mode=config.mode,
            dir=str(told.run_dir),
            id=told.run,
            name=told.name,
            resume="allow",
            reinit="create_new",  # a distillation has a run for each of its students
            config=dict(told.settings),
            settings=settings,
        )

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """See `Sink`."""
        self._run.log(dict(values), step=step)

    def close(self, *, is_done: bool) -> None:
        """See `Sink`."""
        self._run.finish(exit_code=0 if is_done else 1)
