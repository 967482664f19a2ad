"""Shows how far a step is: a bar with rate and ETA on a terminal, plain lines otherwise."""

import threading
import time
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from curation import storage
from curation.printed import visible
from pipelines.engine.step import Receipt

if TYPE_CHECKING:  # `rich` takes 0.15 s, and who is quiet, as every answer is, has no need of it
    from rich.console import Console

PLAIN_LINE_EVERY_S = 10.0
LOOK_EVERY_S = 1.0


class Progress:
    """Where progress goes: `console`, or else stderr. `quiet` shows nothing."""

    def __init__(self, *, quiet: bool = False, console: "Console | None" = None) -> None:
        self.quiet = quiet
        self.log: Path | None = None
        if console is not None:
            self.console = console

    @cached_property
    def console(self) -> "Console":
        from rich.console import Console

        return Console(stderr=True)

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
    def step(
        self, name: str, *, total: int, done: int, rows: "RowCount | None" = None
    ) -> Iterator[Callable[[Receipt], None]]:
        """Show one step; what is yielded is called for every item that gets done.

        Args:
            rows: the images of the items, where it can be told how many of an item in work are done.
        """
        count = _Count(name, total, done, rows or RowCount())
        if self.quiet:
            yield lambda _receipt: None
        else:
            with self._shown(count) as show, _repeated(show if rows is not None else None):

                def advance(receipt: Receipt) -> None:
                    count.add(receipt)
                    show()

                yield advance
        again = f", {done} done before" if done else ""
        self._note(f"{name}: {total}/{total} in {time.monotonic() - count.started:.1f} s{again}")

    @contextmanager
    def _shown(self, count: "_Count") -> Iterator[Callable[[], None]]:
        """What shows the step as it is now: as a bar, or, where it is time for one, as a line."""
        if not self.console.is_terminal:
            yield partial(self._line, count)
            return
        from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        columns = (
            TextColumn("{task.description:<22}"),
            BarColumn(),
            TextColumn("{task.fields[items]}"),
            TextColumn("{task.fields[images]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with RichProgress(*columns, console=self.console) as bar:
            total, at = count.extent()
            task = bar.add_task(count.name, total=total, completed=at, items=count.items(), images="")

            def show() -> None:
                count.look()
                bar.update(task, completed=count.extent()[1], items=count.items(), images=count.images())

            yield show

    def _line(self, count: "_Count") -> None:
        with count.lock:
            now = time.monotonic()
            if now - count.told < PLAIN_LINE_EVERY_S or count.num_items >= count.total:
                return
            count.look()
            if count.has_moved():
                count.told = now
                self._print(f"{count.name}: {', '.join(filter(None, count.words()))}")

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


@dataclass(frozen=True)
class RowCount:
    """The images of a step's items.

    Args:
        total: of all items; 0: not known before they are done.
        done: of the items that were done before.
        in_work: told the identities of the items that have been done since, says how many images of the
            others are done.
    """

    total: int = 0
    done: int = 0
    in_work: Callable[[Set[str]], int] = lambda _over: 0


@dataclass
class _Count:
    """How far a step is. It is asked by the thread that does the work, and by the one that shows it."""

    name: str
    total: int
    num_items: int  # done, those from before among them
    rows: RowCount
    lock: threading.RLock = field(default_factory=threading.RLock)
    started: float = field(default_factory=time.monotonic)
    told: float = field(default_factory=time.monotonic)  # when the last line was printed

    def __post_init__(self) -> None:
        self._before = self.num_items
        self._over: set[str] = set()
        self._of_items = 0  # images of the items that have been done since the start
        self._images = 0  # and of those in work, when this was last looked at
        self._last = (self.num_items, 0)

    def add(self, receipt: Receipt) -> None:
        """One more item is done."""
        with self.lock:
            self.num_items += 1
            self._over.add(receipt.identity)
            self._of_items += int(receipt.facts.get("num_rows", 0))

    def look(self) -> None:
        """Ask how far the items in work are. One that is begun again takes nothing back."""
        with self.lock:
            self._images = max(self._images, self._of_items + self.rows.in_work(self._over))

    def has_moved(self) -> bool:
        """Whether it is further than when this was asked last."""
        before, self._last = self._last, (self.num_items, self._images)
        return self._last != before

    def extent(self) -> tuple[int, int]:
        """The length of the bar and of what is done of it: in images where all are known, or in items."""
        if not self.rows.total:
            return self.total, self.num_items
        return self.rows.total, min(self.rows.done + self._images, self.rows.total)

    def items(self) -> str:
        """Items done, of all."""
        return f"{self.num_items}/{self.total}"

    def images(self) -> str:
        """Images done, and how many in a second."""
        if not self._images:
            return ""
        rate = f"{self._images / max(time.monotonic() - self.started, 1e-9):,.0f} images/s"
        length, at = self.extent()
        return (
            f"{at:,} of {length:,} images, {rate}" if self.rows.total else f"{self._images:,} images, {rate}"
        )

    def words(self) -> tuple[str, ...]:
        """The parts of a line."""
        length, at = self.extent()
        start = self.rows.done if self.rows.total else self._before
        left_s = (time.monotonic() - self.started) / (at - start) * (length - at) if at > start else None
        return self.items(), self.images(), "" if left_s is None else f"about {left_s:.0f} s left"


@contextmanager
def _repeated(show: Callable[[], None] | None) -> Iterator[None]:
    """Call `show` every second, in a thread of its own, while the work is done."""
    if show is None:
        yield
        return
    over = threading.Event()

    def watch() -> None:
        while not over.wait(LOOK_EVERY_S):
            show()

    thread = threading.Thread(target=watch, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
