"""What a training says of itself: one JSON line for each step logged, and a progress line for people."""

import json
import math
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

PLAIN_LINE_EVERY_S = 10.0


def read_metrics(run_dir: Path) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl` so far; an unfinished last one is left out."""
    path = run_dir / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


class MetricsLog:
    """Appends to `RUN_DIR/metrics.jsonl`; a resumed training goes on right behind its checkpoint's step."""

    def __init__(self, run_dir: Path, *, first_step: int) -> None:
        run_dir.mkdir(parents=True, exist_ok=True)
        self._path = run_dir / "metrics.jsonl"
        kept = [line for line in read_metrics(run_dir) if first_step and line["step"] <= first_step]
        # What was logged after the checkpoint happens again.
        temp = self._path.with_suffix(".tmp")
        temp.write_text("".join(json.dumps(line) + "\n" for line in kept))
        temp.replace(self._path)

    def write(self, record: dict[str, Any]) -> None:
        """Append one line; numbers that JSON does not have become null."""
        with self._path.open("a") as out:
            out.write(json.dumps({key: _plain(value) for key, value in record.items()}) + "\n")


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


@dataclass
class ProgressLine:
    """Step, loss, rate, time left: one line that changes on a terminal, elsewhere one every ten seconds."""

    total: int
    out: TextIO = field(default_factory=lambda: sys.stderr)
    quiet: bool = False
    _last: float = 0.0

    def show(self, record: dict[str, Any]) -> None:
        """Show a step."""
        now = time.monotonic()
        is_terminal = self.out.isatty()
        is_due = now - self._last >= (0.2 if is_terminal else PLAIN_LINE_EVERY_S)
        if self.quiet or not (is_due or record["step"] == self.total):
            return
        self._last = now
        left_s = (self.total - record["step"]) * record["step_s"]
        text = (
            f"step {record['step']:,}/{self.total:,}  loss {record['loss']:.4f}  "
            f"{record['images_per_s']:,.1f} images/s  waiting for data {record['data_wait']:.0%}  "
            f"about {_duration(left_s)} left"
        )
        end = "\n" if not is_terminal or record["step"] == self.total else ""
        self.out.write(f"\r\033[K{text}{end}" if is_terminal else f"{text}\n")
        self.out.flush()

    def say(self, text: str) -> None:
        """One line for people, above the one that changes."""
        if not self.quiet:
            self.out.write(f"\r\033[K{text}\n" if self.out.isatty() else f"{text}\n")
            self.out.flush()


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
