"""What a training says of itself: one JSON line for each step logged, and a progress line for people."""

import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from curation.printed import visible
from pretrain.sinks.feed import Feed, Sinks

PLAIN_LINE_EVERY_S = 10.0
_NEWEST = 0.02  # what the newest step has of the mean: the last fifty count
_MAX_STEP = 1 << 53  # what fp64 counts; no training gets there


def read_metrics(run_dir: Path) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl` so far; what is no whole line, at the end or within, is left out."""
    return _read(run_dir / "metrics.jsonl")[0]


def _read(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The whole lines of a file, and how many others it has; one that is being written is none of them."""
    text = path.read_bytes().decode("utf-8", "replace") if path.exists() else ""
    lines = [line for line in text.split("\n")[:-1] if line]
    records = [record for line in lines if (record := _record(line)) is not None]
    return records, len(lines) - len(records)


def _record(line: str) -> dict[str, Any] | None:
    """What stands in a line; None unless it is as `MetricsLog.write` writes them."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or type(step := record.get("step")) is not int:
        return None
    is_written = 0 <= step <= _MAX_STEP and all(map(_is_number, record.values()))
    return record if is_written else None


def _is_number(value: Any) -> bool:
    """Whether a value is a finite number that fp64 has room for, or null for one that was not finite."""
    if value is None or isinstance(value, bool):
        return True
    return isinstance(value, int | float) and abs(value) <= sys.float_info.max


class MetricsLog:
    """Appends to `RUN_DIR/metrics.jsonl`; a resumed training goes on right behind its checkpoint's step.

    It is for people and plots: what is damaged in it, or cannot be written, is said, and stops no training.
    The same holds for the sinks, which get the same lines. Left as a context, it closes them.

    Args:
        run_dir: of the training.
        first_step: the training goes on behind it.
        warn: told of what fails.
        sinks: where else the lines go.
    """

    def __init__(
        self,
        run_dir: Path,
        *,
        first_step: int,
        warn: Callable[[str], None],
        sinks: Sinks | None = None,
    ) -> None:
        self._path = run_dir / "metrics.jsonl"
        self._warn = warn
        self._start = ""  # what ends a line that was torn
        self._is_failing = False
        last_step = self._cut(first_step)
        fed = sinks or Sinks((), "", {})
        self._feed = Feed(fed, run_dir, first_step=first_step, last_step=last_step, warn=warn)

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._feed.close(is_done=error is None)

    def _cut(self, first_step: int) -> int:
        """Leave the lines up to a step; returns the last step that there was, -1 for none."""
        # What was logged after the checkpoint happens again.
        temp = self._path.with_suffix(".tmp")
        found: list[dict[str, Any]] = []
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            found, num_torn = _read(self._path)
            kept = [line for line in found if first_step and line["step"] <= first_step]
            temp.write_text("".join(json.dumps(line) + "\n" for line in kept))
            temp.replace(self._path)
        except OSError as error:
            self._start = "\n"  # what lies there has not been looked at
            self._say_failing(error)
        else:
            if num_torn and first_step:
                self._warn(f"{self._path}: {num_torn} torn lines are left out; only the curves miss them")
        return max((line["step"] for line in found), default=-1)

    def write(self, record: dict[str, object]) -> None:
        """Append one line; numbers that JSON does not have become null."""
        plain = {key: _plain(value) for key, value in record.items()}
        self._feed.write(plain)
        line = json.dumps(plain)
        try:
            with self._path.open("a") as out:
                out.write(f"{self._start}{line}\n")
        except OSError as error:
            self._start = "\n"
            self._say_failing(error)
        else:
            self._start, self._is_failing = "", False

    def _say_failing(self, error: OSError) -> None:
        if not self._is_failing:
            self._is_failing = True
            self._warn(
                f"{self._path} cannot be written ({error.strerror}); the training goes on, and its curves "
                "will miss these steps"
            )


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


class TimeLeft:
    """How long a step takes, as a mean over the last ones, and so how long the rest will.

    An exponential mean without the bias of its start. The first step of a process waits for workers to start
    and kernels to be chosen, and counts only until there is a second one. What lies between steps, a look or
    a checkpoint, is in none of them.
    """

    def __init__(self) -> None:
        self._sum = self._weight = 0.0
        self._num_steps = 0

    def add(self, step_s: float) -> None:
        """Take in a step."""
        if self._num_steps == 1:
            self._sum = self._weight = 0.0
        self._num_steps += 1
        self._sum = (1 - _NEWEST) * self._sum + _NEWEST * step_s
        self._weight = (1 - _NEWEST) * self._weight + _NEWEST

    def of(self, num_steps: int) -> float:
        """Seconds that so many more steps will take; one at least was taken in."""
        return num_steps * self._sum / self._weight


@dataclass
class ProgressLine:
    """Step, loss, rate, time left: one line that changes on a terminal, elsewhere one every ten seconds."""

    total: int
    out: TextIO = field(default_factory=lambda: sys.stderr)
    quiet: bool = False
    _last: float = 0.0
    _left: TimeLeft = field(default_factory=TimeLeft)

    def show(self, records: Sequence[dict[str, Any]]) -> None:
        """Show a step, of which there is a record for each student."""
        now, record = time.monotonic(), records[0]
        self._left.add(record["step_s"])
        is_terminal = self.out.isatty()
        is_due = now - self._last >= (0.2 if is_terminal else PLAIN_LINE_EVERY_S)
        if self.quiet or not (is_due or record["step"] == self.total):
            return
        self._last = now
        losses = " / ".join(f"{record['loss']:.4f}" for record in records)
        left_s = self._left.of(self.total - record["step"])
        text = (
            f"step {record['step']:,}/{self.total:,}  loss {losses}  "
            f"{record['images_per_s']:,.1f} images/s  waiting for data {record['data_wait']:.0%}  "
            f"about {_duration(left_s)} left"
        )
        end = "\n" if not is_terminal or record["step"] == self.total else ""
        self.out.write(f"\r\033[K{text}{end}" if is_terminal else f"{text}\n")
        self.out.flush()

    def say(self, text: str) -> None:
        """One line for people, above the one that changes."""
        text = visible(text)
        if not self.quiet:
            self.out.write(f"\r\033[K{text}\n" if self.out.isatty() else f"{text}\n")
            self.out.flush()


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
