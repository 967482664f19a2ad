"""Shows how far a step is: a bar with rate and ETA on a terminal, plain lines otherwise."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress

from curation import storage
from curation.printed import visible
from pipelines.step import Receipt

PLAIN_LINE_EVERY_S = 10.0


@dataclass
class Progress:
    """Where progress goes. `quiet` shows nothing."""

    quiet: bool = False
    console: Console = field(default_factory=lambda: Console(stderr=True))
    log: Path | None = None

    def log_to(self, folder: str) -> None:
        """Keep the plain lines of this run in a file of `folder`, named by the time."""
        name = time.strftime("run-%Y%m%dT%H%M%SZ.log", time.gmtime())
        self.log = storage.local_path(storage.join(folder, name))
        with self._without_log():
            self.log.parent.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def _without_log(self) -> Iterator[None]:
        """Go on without the log where it cannot be written: it is for people, and no reason to end a run."""
        try:
            yield
        except OSError as error:
            log, self.log = self.log, None
            self.say(f"{log} cannot be written ({error.strerror}); the run goes on without it")

    @contextmanager
    def step(self, name: str, *, total: int, done: int) -> Iterator[Callable[[Receipt], None]]:
        """Show one step; what is yielded is called for every item that gets done."""
        started = time.monotonic()
        if self.quiet:
            yield lambda _receipt: None
        elif self.console.is_terminal:
            yield from self._bar(name, total, done)
        else:
            yield from self._lines(name, total, done)
        again = f", {done} done before" if done else ""
        self._note(f"{name}: {total}/{total} in {time.monotonic() - started:.1f} s{again}")

    def _bar(self, name: str, total: int, done: int) -> Iterator[Callable[[Receipt], None]]:
        columns = (
            TextColumn("{task.description:<22}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with RichProgress(*columns, console=self.console) as bar:
            task = bar.add_task(name, total=total, completed=done, rate="")
            rate = _Rate()

            def advance(receipt: Receipt) -> None:
                bar.update(task, advance=1, rate=rate.after(receipt))

            yield advance

    def _lines(self, name: str, total: int, done: int) -> Iterator[Callable[[Receipt], None]]:
        started, last, finished, rate = time.monotonic(), time.monotonic(), done, _Rate()

        def advance(receipt: Receipt) -> None:
            nonlocal last, finished
            finished += 1
            text = rate.after(receipt)
            now = time.monotonic()
            if now - last >= PLAIN_LINE_EVERY_S and finished < total:
                last = now
                left_s = (now - started) / (finished - done) * (total - finished)
                self._print(f"{name}: {finished}/{total} {text}, about {left_s:.0f} s left")

        yield advance

    def say(self, text: str) -> None:
        """One line for people."""
        if not self.quiet:
            self._print(text)

    def _note(self, text: str) -> None:
        """A line for the log, and for people where no bar has said it."""
        if not self.quiet and not self.console.is_terminal:
            self._print(text)
        if self.log is not None:
            with self._without_log(), self.log.open("a") as out:
                out.write(f"{time.strftime('%H:%M:%S', time.gmtime())} {text}\n")

    def _print(self, text: str) -> None:
        self.console.print(visible(text), highlight=False, markup=False, soft_wrap=True)


@dataclass
class _Rate:
    """Images per second since the step began, from the rows that receipts name."""

    started: float = field(default_factory=time.monotonic)
    num_rows: int = 0

    def after(self, receipt: Receipt) -> str:
        self.num_rows += int(receipt.facts.get("num_rows", 0))
        elapsed_s = max(time.monotonic() - self.started, 1e-9)
        return f"{self.num_rows / elapsed_s:,.0f} images/s" if self.num_rows else ""
