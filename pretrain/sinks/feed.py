"""Feeds the sinks of a training: each in a thread of its own, for no server to be waited for by a step.

RUN_DIR/sinks.json      {"run": names this training among others, "seen": the last step given to sinks}
"""

import json
import queue
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curation.printed import redact, redacted
from pretrain.sinks.config import SinkConfig
from pretrain.sinks.sink import Sink, Told

STATE = "sinks.json"
MAX_WAITING = 10_000  # records, for a server that does not answer
CLOSE_S = 60.0

Warn = Callable[[str], None]


@dataclass(frozen=True)
class Sinks:
    """Which sinks a training has, and what they are told of it: its name, and its config."""

    configs: Sequence[SinkConfig]
    name: str
    settings: Mapping[str, Any]


class Feed:
    """The sinks of one training at work.

    A sink is given each step once. A resumed training does the steps behind its checkpoint again, and those
    that the sinks have seen already are not given again: the file of state names the last one.

    Args:
        sinks: what is fed.
        run_dir: of the training.
        first_step: the training goes on behind it; one that begins (0) is a new run for the sinks.
        last_step: of the steps that were logged so far.
        warn: told of what fails.
    """

    def __init__(
        self,
        sinks: Sinks,
        run_dir: Path,
        *,
        first_step: int,
        last_step: int,
        warn: Warn,
    ) -> None:
        state = _read(run_dir / STATE) if first_step else None
        run = state["run"] if state else uuid.uuid4().hex[:12]
        seen = max(state["seen"] if state else -1, last_step) if first_step else -1
        told = Told(sinks.name, run, run_dir, first_step, redacted(dict(sinks.settings)))
        if sinks.configs:
            _write(run_dir / STATE, {"run": run, "seen": seen}, warn=warn)
        self._feeders = [_Feeder(config, told, seen=seen, warn=warn) for config in sinks.configs]

    def write(self, record: Mapping[str, Any]) -> None:
        """Give a line of `metrics.jsonl` to every sink; what is no finite number is left out."""
        step = record["step"]
        values = {key: float(value) for key, value in record.items() if key != "step" and value is not None}
        for feeder in self._feeders:
            feeder.write(step, values)

    def close(self, *, is_done: bool) -> None:
        """Let every sink take in what waits, a minute at most."""
        for feeder in self._feeders:
            feeder.end(is_done=is_done)
        for feeder in self._feeders:
            feeder.join()


class _Feeder:
    """One sink and its thread. What fails is told once, and the sink is fed no more."""

    def __init__(self, config: SinkConfig, told: Told, *, seen: int, warn: Warn) -> None:
        self._kind, self._warn = config.kind, warn
        # TensorBoard takes back, for a resumed training, what comes behind its checkpoint.
        takes_back = config.kind == "tensorboard" and told.first_step
        self._seen = told.first_step if takes_back else seen
        self._is_failed = False
        self._waiting: queue.Queue[tuple[int, Mapping[str, float]] | bool] = queue.Queue(MAX_WAITING)
        self._thread = threading.Thread(
            target=self._run, args=(config, told), name=f"lvd-{config.kind}", daemon=True
        )
        self._thread.start()

    def write(self, step: int, values: Mapping[str, float]) -> None:
        if self._is_failed or step <= self._seen:
            return
        self._put((step, values))

    def end(self, *, is_done: bool) -> None:
        if not self._is_failed:
            self._put(is_done)

    def join(self) -> None:
        if self._is_failed:
            return
        self._thread.join(CLOSE_S)
        if self._thread.is_alive():
            self._fail(f"it has not taken everything in after {CLOSE_S:.0f} s")

    def _put(self, item: tuple[int, Mapping[str, float]] | bool) -> None:
        try:
            self._waiting.put_nowait(item)
        except queue.Full:
            self._fail(f"{MAX_WAITING:,} lines wait for it")

    def _run(self, config: SinkConfig, told: Told) -> None:
        try:
            sink = open_sink(config, told)
            while not isinstance(item := self._waiting.get(), bool):
                sink.write(*item)
            sink.close(is_done=item)
        except Exception as error:  # whatever a library raises, the training goes on
            self._fail(f"{type(error).__name__}: {error}")

    def _fail(self, reason: str) -> None:
        if not self._is_failed:
            self._is_failed = True
            shown = redact(" ".join(reason.split()))[:400]
            self._warn(
                f"The sink {self._kind} failed ({shown}). The training goes on without it; metrics.jsonl has "
                "what it misses, and the next start of the training tries it again"
            )


def open_sink(config: SinkConfig, told: Told) -> Sink:
    """The sink that a config describes, ready to be written to."""
    match config.kind:
        case "tensorboard":
            from pretrain.sinks.tensorboard import TensorBoardSink

            return TensorBoardSink(config, told)
        case "mlflow":
            from pretrain.sinks.mlflow import MlflowSink

            return MlflowSink(config, told)
        case "wandb":
            from pretrain.sinks.wandb import WandbSink

            return WandbSink(config, told)
        case "trackio":
            from pretrain.sinks.trackio import TrackioSink

            return TrackioSink(config, told)


def _read(path: Path) -> dict[str, Any] | None:
    """What the file of state says; None where there is none, or it says nothing."""
    try:
        state = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    is_whole = isinstance(state, dict) and isinstance(state.get("run"), str)
    return state if is_whole and isinstance(state.get("seen"), int) else None


def _write(path: Path, state: Mapping[str, Any], *, warn: Warn) -> None:
    temp = path.with_suffix(".tmp")
    try:
        temp.write_text(json.dumps(state))
        temp.replace(path)
    except OSError as error:
        warn(f"{path} cannot be written ({error.strerror}); resumed, the sinks will begin a new run")
