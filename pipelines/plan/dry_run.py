"""The flow, walked without an executor: what a run has made so far. Nothing is run or written."""

from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from pipelines.config.run_config import RunConfig
from pipelines.engine.progress import Progress
from pipelines.engine.runner import Runner, StopHereError

Made_co = TypeVar("Made_co", covariant=True)


class Flow(Protocol[Made_co]):
    """The flow, or as much of it as is asked about: `ingest`, `curate`."""

    def __call__(self, runner: Runner, config: RunConfig, /, *, refresh: bool) -> Made_co: ...


@dataclass(frozen=True)
class DryRun(Generic[Made_co]):
    """What the flow has made, None where a step has work to do; and the runner, with receipts."""

    made: Made_co | None
    runner: Runner


def dry_run(config: RunConfig, flow: Flow[Made_co]) -> DryRun[Made_co]:
    """Walk as much of the flow as is done.

    Raises:
        LvdError, OSError: as the stages say.
    """
    runner = Runner(config.run_dir, None, Progress(quiet=True))
    try:
        return DryRun(flow(runner, config, refresh=False), runner)
    except StopHereError:
        return DryRun(None, runner)
