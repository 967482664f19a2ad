"""A plan for people, and as plain data."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from pipelines.plan.answer import Plan
from pipelines.plan.estimate import StepEstimate
from pipelines.plan.how_far import plan_lines
from pipelines.plan.rates import Spent
from pipelines.stages.retrieve.forecast import num_kept
from pipelines.stages.shard.forecast import kept_bytes
from pipelines.words import size, table_lines

# The clock runs so many times as long as the cores work on a machine that is not shared, at most.
BUSY = 1.5
HEAD = ("stage", "step", "items", "done", "to do", "one worker", "all", "read", "write", "memory")


def duration(seconds: float | None) -> str:
    """A time in the unit that suits it."""
    if seconds is None:
        return ""
    for limit, unit, name in ((100, 1, "s"), (6000, 60, "min"), (float("inf"), 3600, "h")):
        if seconds < limit:
            return f"{seconds / unit:,.1f} {name}"
    raise AssertionError


def plan_report(plan: Plan, *, explain: bool) -> list[str]:
    """The plan as a table with footnotes."""
    if plan.sizes is None:
        return plan_lines(plan.states, plan.to_come)
    lines = table_lines([HEAD, *map(_row, _merged(plan.steps))])
    lines += ["", *_totals(plan)]
    lines += [*_sources(plan), *plan.notes]
    if explain:
        lines += ["", "how each cost grows, and what it is counted in:", *table_lines(_how(plan.steps))]
        if plan.file is not None:
            lines += ["", f"why the rates of {plan.file.kind} are what they are:"]
            lines += [f"  {name}: {' '.join(rate.why.split())}" for name, rate in plan.file.rates.items()]
    return lines


def _merged(steps: Sequence[StepEstimate]) -> list[StepEstimate]:
    """Steps of one kind, such as the retrieval of every curated pool, in one line."""
    found: dict[str, StepEstimate] = {}
    for step in steps:
        if (before := found.get(step.work.key)) is None:
            found[step.work.key] = step
            continue
        done = None if before.num_done is None else before.num_done + (step.num_done or 0)
        found[step.work.key] = replace(
            before,
            num_items=before.num_items + step.num_items,
            num_done=done,
            spent=before.spent + step.spent if before.spent and step.spent else None,
            wall_s=_sum(before.wall_s, step.wall_s),
            read_bytes=before.read_bytes + step.read_bytes,
            written_bytes=_sum(before.written_bytes, step.written_bytes),
            worker_bytes=max(before.worker_bytes, step.worker_bytes),
        )
    return list(found.values())


def _sum(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one + other


def _row(step: StepEstimate) -> tuple[str, ...]:
    done = "" if step.num_done is None else f"{step.num_done:,}"
    to_do = step.num_items - (step.num_done or 0)
    return (
        step.work.stage, step.work.key, f"{step.num_items:,}", done, f"{to_do:,}",
        duration(step.work_s), duration(step.wall_s), size(round(step.read_bytes)),
        "" if step.written_bytes is None else size(round(step.written_bytes)),
        size(round(step.worker_bytes)),
    )  # fmt: skip


def _totals(plan: Plan) -> Iterator[str]:
    sizes, workers = plan.sizes, plan.workers
    assert sizes is not None, "a plan with steps has sizes"
    who = f"{workers.num:,} workers {workers.kind}"
    if workers.num_given:
        who = f"{workers.num_given:,} × {workers.given_kind}, and for the rest {who}"
    yield f"{sizes.total:,} images on {who}: {duration(plan.wall_s)}"
    written = sum(step.written_bytes or 0 for step in plan.steps)
    read = sum(step.read_bytes for step in plan.steps)
    yield (
        f"reads {size(round(read))}, writes {size(round(written))} to the run directory; "
        f"the dataset has about {num_kept(sizes):,} images, {size(kept_bytes(sizes))}"
    )
    slow = max(_merged(plan.steps), key=lambda step: step.wall_s or 0)
    alone = sum(step.wall_s or 0 for step in plan.steps if step.num_items == 1)
    if plan.wall_s:
        share = 100 * (slow.wall_s or 0) / plan.wall_s
        yield (
            f"the longest step is {slow.work.key}: {share:.0f} % of the time; steps of one item, which more "
            f"workers do not shorten: {duration(alone)}"
        )
    yield from _busy(plan.steps)
    if unknown := sorted(
        {step.work.key for step in plan.steps if step.rate is None and step.num_items != step.num_done}
    ):
        yield f"no rate is known of {', '.join(unknown)}: `--like RUN_DIR` or `--rates FILE` may give it"
    if plan.file is not None and (beside := plan.file.beside) is not None:
        yield f"beside it: {beside.what}: {beside.hours:g} h; this estimate: {duration(plan.wall_s)}"
        yield from (f"  - {note}" for note in beside.notes)


def _busy(steps: Sequence[StepEstimate]) -> Iterator[str]:
    """A word on a machine that was doing other things while it was measured."""
    known = (step.spent for step in steps if step.spent is not None and step.spent.cpu_s > 0)
    both = sum(known, Spent())
    if both.cpu_s and (longer := both.wall_s / both.cpu_s) > BUSY:
        yield (
            f"hours are of the clock, which ran {longer:.1f} times as long as the cores worked while "
            "this was measured: the machine was shared, or waited for files"
        )


def _sources(plan: Plan) -> Iterator[str]:
    """Where the rates come from, each source once."""
    by_source: dict[str, list[str]] = {}
    for step in plan.steps:
        if step.rate is not None:
            names = by_source.setdefault(step.rate.source, [])
            if step.work.key not in names:
                names.append(step.work.key)
    for source, names in by_source.items():
        yield f"rates from {source}: {', '.join(names)}"


def _how(steps: Sequence[StepEstimate]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("step", "units", "of", "a worker does", "cost")]
    for step in {step.work.key: step for step in steps}.values():
        per_s = "" if step.rate is None else f"{1 / max(step.rate.unit.wall_s, 1e-18):,.3g}/s"
        rows.append((step.work.key, f"{step.work.units:,.3g}", step.work.unit, per_s, step.work.grows))
    return rows


def _step_data(step: StepEstimate) -> dict[str, object]:
    work = step.work
    return {
        "stage": work.stage,
        "name": work.name,
        "num_items": step.num_items,
        "num_done": step.num_done,
        "unit": work.unit,
        "units": work.units,
        "grows": work.grows,
        "work_s": step.work_s,
        "wall_s": step.wall_s,
        "cpu_s": step.cpu_s,
        "read_bytes": step.read_bytes,
        "written_bytes": step.written_bytes,
        "worker_bytes": step.worker_bytes,
        "rate_source": step.rate and step.rate.source,
    }


def plan_data(plan: Plan) -> dict[str, object]:
    """The plan as plain data; seconds and bytes are of what is to do."""
    sizes = plan.sizes
    return {
        "states": [vars(state) for state in plan.states],
        "to_come": list(plan.to_come),
        "steps": [_step_data(step) for step in plan.steps],
        "images": dict(sizes.images) if sizes else None,
        "shares": sizes.shares.model_dump() if sizes else None,
        "workers": vars(plan.workers),
        "wall_s": plan.wall_s if plan.steps else None,
        "dataset": {"images": num_kept(sizes), "bytes": kept_bytes(sizes)} if sizes else None,
        "beside": plan.file.beside.model_dump() if plan.file and plan.file.beside else None,
        "notes": list(plan.notes),
    }
