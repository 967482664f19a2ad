"""trackio: a run on this machine, or in a Space of Hugging Face."""

import io
from collections.abc import Mapping
from contextlib import redirect_stdout

from pretrain.sinks.config import TrackioConfig
from pretrain.sinks.sink import Told


class TrackioSink:
    """Writes numbers by step, and the config."""

    def __init__(self, config: TrackioConfig, told: Told) -> None:
        import trackio

        # It greets on stdout, which belongs to what a command answers. Nobody else writes there meanwhile.
        with redirect_stdout(io.StringIO()):
            self._run = trackio.init(
                project=config.project,
                name=f"{told.name}-{told.run}",  # by which it is found again
                space_id=config.space,
                config=dict(told.settings),
                resume="allow",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """See `Sink`."""
        self._run.log(dict(values), step=step)

    def close(self, *, is_done: bool) -> None:  # noqa: ARG002 — a run of trackio has no state to set
        """See `Sink`."""
        with redirect_stdout(io.StringIO()):
            self._run.finish()
