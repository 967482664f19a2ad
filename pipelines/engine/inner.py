"""Inner steps: what an outcome is made of where it is too much for one item, forgotten once it is published.

They lie within the outcome's own folder, `steps/NAME/IDENTITY/inner/`. So nothing is taken that another
config or another version of the outcome has begun, and to forget them is to remove one folder: nobody has to
know what lies there. A run that was killed while it did so finds the outcome, and removes what is left.

An inner step may be an outcome itself. So are states: state t + 1 is a map over groups, its inner steps, and
a reduce, its item, of state t.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from curation import storage
from pipelines.engine.digest import Unhashed
from pipelines.engine.runner import Runner
from pipelines.engine.step import RECEIPT, AnyItem, AnyStep, FileRef, Item, Receipt, Step, item_folder

INNER = "inner"

# Of what a state, or another inner step's item, was made from.
FOUND_BY_PLACE = Unhashed("the place says which it is, and finds it when what it was made from is gone")

Task = TypeVar("Task")


class InnerSteps:
    """The inner steps of one outcome.

    Args:
        runner: of the run.
        folder: where they lie, relative to the run directory.
    """

    def __init__(self, runner: Runner, folder: str) -> None:
        self.runner = runner
        self.folder = folder

    @classmethod
    def of(cls, runner: Runner, step: AnyStep, item: AnyItem) -> "InnerSteps":
        """Those of an item."""
        return cls(runner, storage.join(item_folder(step, step.identity(item)), INNER))

    def place(self, step: Step[Any, Task]) -> Step[Any, Task]:
        """The step, lying here."""
        return replace(step, within=self.folder)

    def run(
        self, step: AnyStep, items: Sequence[AnyItem], *, advance: Callable[[Receipt], None] | None = None
    ) -> list[Receipt]:
        """The receipts of all items, in their order; see `Runner.run_inside`."""
        return self.runner.run_inside(self.place(step), items, advance=advance)

    def run_shown(self, step: AnyStep, items: Sequence[AnyItem]) -> list[Receipt]:
        """`run`, with the progress under the step's name."""
        with self.runner.progress.step(step.name, total=len(items), done=0) as advance:
            return self.run(step, items, advance=advance)

    def find(self, step: AnyStep, item: AnyItem) -> Receipt | None:
        """The receipt of an item that is done, or None."""
        return self.runner.find(self.place(step), item)

    def files(self, receipts: Sequence[Receipt], name: str) -> tuple[FileRef, ...]:
        """The files of one name of several items."""
        return tuple(receipt.file(self.runner.run_dir, name) for receipt in receipts)

    def lying(self) -> set[str]:
        """The names of what lies here: of steps, and the numbers of states."""
        return storage.list_names(storage.join(self.runner.run_dir, self.folder))

    def forget(self) -> None:
        """Remove all that lies here: receipts first, lest they speak of what is gone."""
        if not self.lying():
            return
        folder = storage.join(self.runner.run_dir, self.folder)
        for info in list(storage.list_files(folder)):
            if info.key.endswith(f"/{RECEIPT}"):
                storage.remove_file(info.path)
        storage.remove_tree(folder)


def run_in_steps(
    runner: Runner,
    step: Step[Any, Task],
    item: Item[Task],
    make: Callable[[InnerSteps], Item[Task]] | None,
) -> Receipt:
    """`runner.run_one` for an outcome of inner steps.

    Args:
        runner: of the run.
        step: the outcome's.
        item: the outcome, not yet told what it is made from.
        make: runs the inner steps and tells it, in a field that is no part of the identity; None: the work
            makes it at once.

    Raises:
        StopHereError, ExecutorError: as `Runner.run`.
    """
    inner = InnerSteps.of(runner, step, item)
    if make is not None and runner.has_to_do(step, item):
        item = make(inner)
    receipt = runner.run_one(step, item)
    if runner.executor is not None:  # a dry run changes nothing
        inner.forget()
    return receipt


class States:
    """A chain of states, each found by its number and made from the one before it.

    Inner steps of a state are forgotten as soon as it is there, and so is a state that enough others follow.

    Args:
        inner: where they lie; no other chain lies there.
        step: of whose items they are.
        item: any of them, not yet told what it is made from.
        keep: so many of the newest stay; None: all of them.
        reads_inner: inner steps of a state stay until the next one is there, which is made from them too.
    """

    def __init__(
        self,
        inner: InnerSteps,
        step: Step[Any, Task],
        item: Item[Task],
        *,
        keep: int | None,
        reads_inner: bool = False,
    ) -> None:
        self._inner, self._step, self._item = inner, step, item
        self._keep, self._reads_inner = keep, reads_inner
        self._lying = {int(name) for name in inner.lying() if name.isdecimal()}
        found = {number: self._scope(number).find(step, item) for number in self._lying}
        self._receipts = {number: receipt for number, receipt in found.items() if receipt is not None}
        # Where one is damaged that has to stay, what follows from it is made again.
        whole = [n for n in self._receipts if all(before in self._receipts for before in self._kept_at(n))]
        self.number = max(whole, default=-1)
        self._forget()

    @property
    def kept(self) -> list[Receipt]:
        """The states that stay, up to the newest; none where there is none."""
        return [self._receipts[number] for number in self._kept_at(self.number)]

    def add(self, make: Callable[[InnerSteps], Item[Any]]) -> Receipt:
        """Make the next state; `make` runs its inner steps, and tells the item what it is made from."""
        number = self.number + 1
        scope = self._scope(number)
        receipt = scope.find(self._step, self._item)
        if receipt is None:
            [receipt] = scope.run(self._step, [make(self.inner(number))])
        self._lying.add(number)
        self._receipts[number] = receipt
        self.number = number
        self._forget()
        return receipt

    def inner(self, number: int) -> InnerSteps:
        """The inner steps of a state."""
        return InnerSteps.of(self._inner.runner, self._scope(number).place(self._step), self._item)

    def _scope(self, number: int) -> InnerSteps:
        return InnerSteps(self._inner.runner, storage.join(self._inner.folder, str(number)))

    def _kept_at(self, number: int) -> range:
        """The numbers of the states that stay when that of `number` is the newest."""
        return range(0 if self._keep is None else max(number + 1 - self._keep, 0), number + 1)

    def _forget(self) -> None:
        """Remove what the newest state has superseded."""
        superseded = [number for number in self._lying if number < self._kept_at(self.number).start]
        for number in superseded:
            self._scope(number).forget()
            self._lying.remove(number)
        last = self.number - int(self._reads_inner)
        if last >= 0:
            self.inner(last).forget()
