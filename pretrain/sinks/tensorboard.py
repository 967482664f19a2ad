"""TensorBoard: event files in a folder."""

import json
from collections.abc import Mapping
from pathlib import Path

from pretrain.sinks.config import TensorBoardConfig
from pretrain.sinks.sink import Told

FLUSH_S = 10


class TensorBoardSink:
    """Writes scalars, and the config as a text.

    A resumed training writes a new file beside the old ones, and says in it from which step on theirs no
    longer count: no step is shown twice.
    """

    def __init__(self, config: TensorBoardConfig, told: Told) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder = Path(config.dir) / told.name if config.dir else told.run_dir / "tensorboard"
        first = told.first_step + 1 if told.first_step else 0
        self._writer = SummaryWriter(str(folder), purge_step=first, flush_secs=FLUSH_S)
        if not told.first_step:
            text = json.dumps(told.settings, indent=1)
            self._writer.add_text("config", f"```\n{text}\n```", 0)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """See `Sink`."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self, *, is_done: bool) -> None:  # noqa: ARG002 — a file has no state to set
        """See `Sink`."""
        self._writer.close()
