"""Runs steps: finds what is done, hands the rest to an executor, and takes care of what kills a worker."""

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol

from curation import storage
from curation.errors import ExecutorError, IntegrityError
from curation.local_reads import NotRegularError
from curation.sealed import seal, unseal
from pipelines.engine.digest import digest_of
from pipelines.engine.flow import FLOW
from pipelines.engine.lock import Owned
from pipelines.engine.progress import Progress, RowCount
from pipelines.engine.row_notes import noted_rows
from pipelines.engine.step import (
    SET_ASIDE,
    AnyItem,
    AnyStep,
    Receipt,
    find_receipt,
    item_folder,
)

MARKERS = "markers"  # the folder of a step's markers, beside those of its items
# An item is tried this often with its neighbours before it is taken aside.
MAX_ATTEMPTS = 3
# A row is condemned when it has killed its process this often, alone, in a fresh process.
DEATHS_TO_CONDEMN = 2
CONDEMNED_REASON = "crashed_decoder"
SKIPPED_REASON = "skipped"  # of rows that a probe leaves out; never published


@dataclass(frozen=True)
class Death:
    """A worker process died (or was ended because it hung) with an item in its hands."""

    cause: str
    blames_item: bool  # False for out-of-memory, preemption and the like: they condemn nobody


# Positions of items, in any order, with what became of them.
Outcomes = Iterator[tuple[int, Receipt | Death]]


class Executor(Protocol):
    """Where the work of items is done. Both executors give the same bytes."""

    def run(self, step: AnyStep, items: Sequence[AnyItem], run_dir: str) -> Outcomes:
        """Do every item, in any order; yield each item's position with its receipt, or its death.

        Retries after a worker's death are the executor's own, at most `MAX_ATTEMPTS`; an exception that the
        work itself raises is raised here.
        """
        ...

    def run_alone(
        self, step: AnyStep, item: AnyItem, run_dir: str, *, condemned: Mapping[int, str], publish: bool
    ) -> Receipt | Death:
        """Do one item in a fresh process of its own; without `publish` only to see whether it survives."""
        ...


class StopHereError(Exception):
    """The run has reached the stage that it was asked to stop after, or (dry) the first step not done."""


@dataclass(frozen=True)
class StepState:
    """How far a step is: what `plan` and `status` show."""

    name: str
    stage: str
    num_items: int
    num_done: int
    num_rows: int


@dataclass
class Runner:
    """Runs the steps of one run directory.

    Args:
        executor: where items are done; None for a dry run, which stops at the first step not done.
        passed: receipts of earlier generations, by which later ones are found; their files are not needed.
        latest: receipts of the latest generations: in use, or what the next generation begins from.
        renewed: identities of the generations that this run has begun on its way so far; it begins no other
            after them.
        owned: the lock of the run directory, which must still be ours where work begins.
    """

    run_dir: str
    executor: Executor | None
    progress: Progress
    until: str | None = None
    states: list[StepState] = field(default_factory=list)
    receipts: dict[str, list[Receipt]] = field(default_factory=dict)
    passed: list[Receipt] = field(default_factory=list)
    latest: list[Receipt] = field(default_factory=list)
    renewed: frozenset[str] = frozenset()
    owned: Owned | None = None
    _is_said: bool = False
    _begun: set[str] = field(default_factory=set)
    _folders: dict[str, set[str]] = field(
        default_factory=dict
    )  # by step, as they were when it was first asked

    def run(self, step: AnyStep, items: Sequence[AnyItem]) -> list[Receipt]:
        """The receipts of all items, in their order; what is done already is not done again.

        Raises:
            StopHereError: when the stage asked for lies behind us, or in a dry run something is to do.
            ExecutorError: when an item cannot be done.
        """
        if self._is_behind(step):
            raise StopHereError
        identities = [step.identity(item) for item in items]
        marker = f"{step.folder}/{MARKERS}/{digest_of(identities)}.json"
        marked = self._read_marker(marker, identities)
        there = self._names(step)
        done = self._done(step, identities, there, marked)
        # Items of one identity have one output: two pools may list the same folder.
        first = {identity: i for i, identity in reversed(list(enumerate(identities)))}
        todo = [i for i, identity in enumerate(identities) if i not in done and first[identity] == i]
        num_rows = sum(items[i].num_rows for i in todo)
        self.states.append(StepState(step.name, step.stage, len(items), len(done), num_rows))
        if todo and self.executor is None:
            self.receipts.setdefault(step.name, []).extend(done.values())
            raise StopHereError
        if todo and self.executor is not None:
            self._say_what_is_anew(step, items, there.difference(identities) if not done else set())
            rows = RowCount(
                sum(items[i].num_rows for i in {*done, *todo}),
                sum(items[i].num_rows for i in done),
                partial(self._rows_in_work, {identities[i]: items[i].num_rows for i in todo}),
            )
            with self.progress.step(step.name, total=len(items), done=len(done), rows=rows) as advance:
                for position, receipt in self._do(self.executor, step, [items[i] for i in todo]):
                    done[todo[position]] = receipt
                    advance(receipt)
        receipts = [done[i] if i in done else done[first[identities[i]]] for i in range(len(items))]
        if (todo or not marked) and self.executor is not None:
            self._write_marker(marker, receipts)
        # Several curated pools retrieve in a step each, of one name.
        self.receipts.setdefault(step.name, []).extend(receipts)
        return receipts

    def _names(self, step: AnyStep) -> set[str]:
        """What lies in the folder of a step now: items, by their identities, and markers."""
        return storage.list_names(storage.join(self.run_dir, step.folder))

    def _done(
        self, step: AnyStep, identities: Sequence[str], there: set[str], marked: Mapping[int, Receipt]
    ) -> dict[int, Receipt]:
        """The receipts of items that are done; a marker may speak of what has been removed since."""
        found = {
            i: marked.get(i) or find_receipt(self.run_dir, step, identity)
            for i, identity in enumerate(identities)
            if identity in there
        }
        return {i: receipt for i, receipt in found.items() if receipt is not None}

    def _rows_in_work(self, num_rows: Mapping[str, int], over: Set[str]) -> int:
        """Rows that are done of items in work.

        Args:
            num_rows: of a step's items, by identity; 0 where an item does not know.
            over: identities of items that are done: what they have noted is no more to be counted.
        """
        noted = noted_rows(self.run_dir)
        return sum(min(n, num_rows[i] or n) for i, n in noted.items() if i in num_rows and i not in over)

    def _say_what_is_anew(self, step: AnyStep, items: Sequence[AnyItem], others: set[str]) -> None:
        """Say, once, from which step on nothing that lies there is used, and where that can be told why."""
        has_begun = any(item.before for item in items)  # another generation: asked for
        if self._is_said or has_begun or not others - {MARKERS}:
            return
        self._is_said = True
        earlier = [replace(step, version=version) for version in range(1, step.version)]
        versions = [old.version for old in earlier if any(old.identity(item) in others for item in items)]
        if versions:
            why = f"an earlier lvd (version {versions[-1]} of this step; it has {step.version} now)"
        else:
            why = "another config, from other sources or by another lvd"
        self.progress.say(
            f"{step.name}, and what follows from it, is done anew: what is there was made by {why}"
        )

    def run_one(self, step: AnyStep, item: AnyItem) -> Receipt:
        """`run` for a step of a single item."""
        return self.run(step, [item])[0]

    def find(self, step: AnyStep, item: AnyItem) -> Receipt | None:
        """The receipt of an item that is done, or None."""
        return find_receipt(self.run_dir, step, step.identity(item))

    def has_to_do(self, step: AnyStep, item: AnyItem) -> bool:
        """Whether `run_one` would do work now."""
        return self.executor is not None and not self._is_behind(step) and self.find(step, item) is None

    def _is_behind(self, step: AnyStep) -> bool:
        return self.until is not None and FLOW.index(step.stage) > FLOW.index(self.until)

    def run_inside(
        self, step: AnyStep, items: Sequence[AnyItem], *, advance: Callable[[Receipt], None] | None = None
    ) -> list[Receipt]:
        """`run` for steps that another step is made of, and that are removed once it is done.

        They have no marker and no state; what is done is found by its receipt.

        Args:
            items: its items, each of an identity of its own.

        Raises:
            ExecutorError: when an item cannot be done.
        """
        assert self.executor is not None, "inner steps are for runs that do work"
        identities = [step.identity(item) for item in items]
        tell = advance or (lambda _receipt: None)
        done = self._done(step, identities, self._names(step), {})
        for receipt in done.values():
            tell(receipt)
        todo = [i for i in range(len(items)) if i not in done]
        for position, receipt in self._do(self.executor, step, [items[i] for i in todo]) if todo else ():
            done[todo[position]] = receipt
            tell(receipt)
        return [done[i] for i in range(len(items))]

    def newest(
        self,
        step: AnyStep,
        item: AnyItem,
        *,
        again: Callable[[Receipt], bool],
        is_stale: Callable[[Receipt], bool] | None = None,
    ) -> AnyItem:
        """The latest generation of an item whose outside world may change under it.

        Args:
            item: the item; its generation is set, and the receipt before it where that one is yet to be made.
            again: whether the latest finished generation is to be followed by another, once in a run.
            is_stale: whether it has to be, because what it was made from has changed.
        """
        generation = 0
        latest: Receipt | None = None
        is_damaged = False
        while True:
            this = replace(item, generation=generation)
            receipt = self.find(step, this)
            if receipt is None:
                is_damaged = self._was_set_aside(step, this)
                break
            self.passed += [latest] if latest is not None else []
            latest, newest, generation = receipt, this, generation + 1
        self.latest += [latest] if latest is not None else []
        if latest is None or is_damaged or self._is_followed(latest, again, is_stale):
            self._begun.add(step.identity(this))
            return replace(this, before=latest)
        return newest

    def _is_followed(
        self, latest: Receipt, again: Callable[[Receipt], bool], is_stale: Callable[[Receipt], bool] | None
    ) -> bool:
        if is_stale is not None and is_stale(latest):
            return True
        return latest.identity not in self.renewed and again(latest)

    def _was_set_aside(self, step: AnyStep, item: AnyItem) -> bool:
        """Whether the output of an item was there, and damaged."""
        identity = step.identity(item)
        if step.name not in self._folders:
            self._folders[step.name] = self._names(step)
        note = storage.join(self.run_dir, item_folder(step, identity), SET_ASIDE)
        return identity in self._folders[step.name] and storage.exists(note)

    def anew(self) -> "Runner":
        """A runner for the same run from the start of its flow."""
        renewed = self.renewed | self._begun
        return Runner(
            self.run_dir,
            self.executor,
            self.progress,
            self.until,
            renewed=renewed,
            owned=self.owned,
            _is_said=True,
        )

    def require_owned(self) -> None:
        """See that no other run has taken the run directory over; raises as `Owned.require` does."""
        if self.owned is not None:
            self.owned.require()

    def _do(self, executor: Executor, step: AnyStep, items: list[AnyItem]) -> Iterator[tuple[int, Receipt]]:
        self.require_owned()
        died: list[tuple[int, Death]] = []
        for position, outcome in executor.run(step, items, self.run_dir):
            if isinstance(outcome, Death):
                died.append((position, outcome))
            else:
                yield position, outcome
        for position, death in died:
            yield position, rescue(executor, step, items[position], run_dir=self.run_dir, death=death)

    def _read_marker(self, marker: str, identities: Sequence[str]) -> dict[int, Receipt]:
        """The receipts of a marker. One that is damaged is passed over: the receipts themselves are there."""
        path = storage.join(self.run_dir, marker)
        try:
            texts = unseal(storage.read_bytes(path), where=path)["receipts"]
            found = {i: Receipt.from_json(text, where=path) for i, text in enumerate(texts)}
            if [receipt.identity for receipt in found.values()] != list(identities):
                raise IntegrityError(f"A marker is of other items: {path}")
        except FileNotFoundError:
            return {}
        except (IntegrityError, NotRegularError, KeyError, TypeError):
            self.progress.say(f"A marker is damaged: {path}; the receipts are looked for one by one")
            return {}
        return found

    def _write_marker(self, marker: str, receipts: list[Receipt]) -> None:
        text = seal({"receipts": [r.to_json() for r in receipts]})
        storage.publish_bytes(storage.join(self.run_dir, marker), text.encode(), replace=True)


def rescue(executor: Executor, step: AnyStep, item: AnyItem, *, run_dir: str, death: Death) -> Receipt:
    """Finish an item that kills its worker, at the price of the rows that do it.

    First the whole item once more in a fresh process (the machine may have been at fault); then it is halved
    until the rows that kill stand alone, and these are condemned when they have killed twice.

    Raises:
        ExecutorError: when the item has no rows to halve, or the deaths are nobody's fault.
    """
    outcome = executor.run_alone(step, item, run_dir, condemned={}, publish=True)
    if isinstance(outcome, Receipt):
        return outcome
    if not outcome.blames_item or not item.num_rows:
        raise ExecutorError(
            f"Step {step.name} cannot be finished: its worker died each time",
            got=outcome.cause,
            expected="a worker that lives until the work is done",
            remedy="Give a worker more memory, or run fewer at once (executor.workers), and run again",
        )

    def survives(rows: range) -> bool:
        others = {r: SKIPPED_REASON for r in range(item.num_rows) if r not in rows}
        probe = executor.run_alone(step, item, run_dir, condemned=others, publish=False)
        return isinstance(probe, Receipt) or not probe.blames_item

    killers = find_killers(range(item.num_rows), survives)
    condemned = dict.fromkeys(killers, CONDEMNED_REASON)
    outcome = executor.run_alone(step, item, run_dir, condemned=condemned, publish=True)
    if isinstance(outcome, Death):
        raise ExecutorError(
            f"Step {step.name} kills its worker, and no single row of {step.identity(item)} is to blame",
            got=f"{outcome.cause}; before: {death.cause}",
            remedy="Try again with fewer workers (executor.workers), and report it if it stays",
        )
    return outcome


def find_killers(rows: range, survives: Callable[[range], bool]) -> list[int]:
    """The rows that kill, by bisection.

    Args:
        rows: where to look; the whole range is known to kill.
        survives: whether a fresh process that touches these rows alone survives them.
    """
    if len(rows) == 1:
        deaths = 1
        while deaths < DEATHS_TO_CONDEMN and not survives(rows):
            deaths += 1
        return list(rows) if deaths == DEATHS_TO_CONDEMN else []
    half = len(rows) // 2
    return [
        row
        for part in (rows[:half], rows[half:])
        if not survives(part)
        for row in find_killers(part, survives)
    ]
