"""What one unit of each step's work costs: from the receipts of a run, or from a file with its reasons."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from curation.errors import ConfigError
from pipelines.config.faults import fault_lines
from pipelines.config.run_config import RunConfig
from pipelines.config.strict_yaml import parse_yaml
from pipelines.engine.step import Receipt
from pipelines.plan.work import forecast
from pipelines.stages.forecast import Shares, Sizes, StepForecast, Unit

MAX_FILE_BYTES = 1 << 20
# Fewer pairs than this are mostly overhead, so they say little of a larger join: 6,000 images.
MIN_UNITS: dict[Unit, float] = dict.fromkeys(
    ("pairs", "query × row", "row × cluster × iteration", "row × cell"), 2e7
)
# A step whose cost grows with such units writes what it has found of each image: bytes grow with the images.
PRODUCTS = frozenset((*MIN_UNITS, "row × list", "products of vectors"))
# A file without a row has so many bytes at most: what an item writes that finds nothing.
_EMPTY_FILE_BYTES = 4096


@dataclass(frozen=True)
class Spent:
    """Seconds on the clock, and of all cores; NaN where these are not known."""

    wall_s: float = 0.0
    cpu_s: float = 0.0

    def __add__(self, other: "Spent") -> "Spent":
        return Spent(self.wall_s + other.wall_s, self.cpu_s + other.cpu_s)

    def __mul__(self, number: float) -> "Spent":
        return Spent(self.wall_s * number, self.cpu_s * number)

    def __truediv__(self, number: float) -> "Spent":
        return Spent(self.wall_s / number, self.cpu_s / number)

    def beyond(self, other: "Spent") -> "Spent":
        """What of it is more than another."""
        return Spent(max(0.0, self.wall_s - other.wall_s), max(0.0, self.cpu_s - other.cpu_s))


@dataclass(frozen=True)
class Rate:
    """What one unit costs one worker.

    Args:
        unit: for a unit.
        item: for an item besides.
        start: that the first item of a worker takes besides: models that warm up.
        written_bytes: for a unit.
        image_bytes, item_bytes: written for an image of the run, and for an item, besides.
        by_pool: for a unit in single pools, whose images differ.
        is_given: whether it is of the kind of worker that a file of rates is about.
        source: where it comes from, in words.
    """

    unit: Spent
    item: Spent = Spent()
    start: Spent = Spent()
    written_bytes: float = 0.0
    image_bytes: float = 0.0
    item_bytes: float = 0.0
    by_pool: Mapping[str, Spent] = field(default_factory=dict)
    is_given: bool = False
    source: str = ""


def rates_of(sizes: Sizes, receipts: Mapping[str, Sequence[Receipt]], *, source: str) -> dict[str, Rate]:
    """The rate of every step that the receipts of a run, or of a sample, tell.

    A step that was done in inner steps (k-means, levels and retrieval of many rows) has a receipt of its last
    piece alone, and so no rate.

    Args:
        sizes: of the run; where models were used, with its parts as they are listed.
        receipts: by step.
        source: what was timed, in words.
    """
    rates: dict[str, Rate] = {}
    works: dict[str, list[StepForecast]] = {}
    pieces: dict[str, list[Receipt]] = {}
    left = {name: list(found) for name, found in receipts.items()}
    every = forecast(sizes)
    of_name = Counter(work.name for work in every)
    for work in every:
        # Steps of one name, such as those of curated pools that retrieve, are of one item.
        num = 1 if of_name[work.name] > 1 else len(left.get(work.name, ()))
        works.setdefault(work.key, []).append(work)
        pieces.setdefault(work.key, []).extend(left.get(work.name, [])[:num])
        left[work.name] = left.get(work.name, [])[num:]
    for name, of_step in works.items():
        units = sum(work.units for work in of_step)
        if not pieces[name] or not units or any(work.in_steps for work in of_step):
            continue
        if of_step[0].loads_model:
            rates[name] = _with_model(sizes, pieces[name], source)
            continue
        rate = Rate(_spent(pieces[name]) / units, source=source)
        rates[name] = _with_written(rate, pieces[name], of_step, num_images=sizes.total)
    return rates


def _spent(receipts: Sequence[Receipt]) -> Spent:
    times = [receipt.timings for receipt in receipts]
    return Spent(sum(one["work_s"] + one["publish_s"] for one in times), sum(one["cpu_s"] for one in times))


def _written(receipts: Sequence[Receipt]) -> int:
    return sum(num_bytes for receipt in receipts for num_bytes, _ in receipt.files.values())


def _with_written(
    rate: Rate, receipts: Sequence[Receipt], works: Sequence[StepForecast], *, num_images: int
) -> Rate:
    written = _written(receipts)
    if works[0].unit not in PRODUCTS:
        return replace(rate, written_bytes=written / sum(work.units for work in works))
    of_item = min(_EMPTY_FILE_BYTES, *(_written([receipt]) for receipt in receipts))
    found = written - of_item * len(receipts)
    return replace(rate, item_bytes=of_item, image_bytes=found / max(num_images, 1))


def _with_model(sizes: Sizes, receipts: Sequence[Receipt], source: str) -> Rate:
    """Images of different pools cost differently, and the first part of a worker warms its model up."""
    first = min(receipts, key=lambda receipt: receipt.timings["ended"])
    pools = [alike.pool for alike in sizes.listed for _ in range(alike.num_parts)]
    by_pool: dict[str, list[Receipt]] = {}
    for pool, receipt in zip(pools, receipts, strict=True):
        if receipt is not first or len(receipts) == 1:
            by_pool.setdefault(pool, []).append(receipt)
    unit = _of_row([receipt for own in by_pool.values() for receipt in own])
    return Rate(
        unit,
        start=_spent([first]).beyond(unit * _rows([first])),
        written_bytes=_written(receipts) / _rows(receipts),
        by_pool={pool: _of_row(own) for pool, own in by_pool.items()},
        source=source,
    )


def _of_row(receipts: Sequence[Receipt]) -> Spent:
    return _spent(receipts) / _rows(receipts)


def _rows(receipts: Sequence[Receipt]) -> int:
    return max(sum(int(receipt.facts["num_rows"]) for receipt in receipts), 1)


def is_small(work: StepForecast) -> bool:
    """Whether so little work tells overhead rather than a rate."""
    return work.units < MIN_UNITS.get(work.unit, 0)


def with_drawn(rates: Mapping[str, Rate], drawn: Mapping[str, Rate], sizes: Sizes) -> dict[str, Rate]:
    """Rates where steps that were too small to tell have that of drawn vectors.

    What the small step took beyond it is overhead, for each of its items.
    """
    found = dict(rates)
    works = {work.key: work for work in forecast(sizes)}
    for name, rate in drawn.items():
        work, measured = works.get(name), rates.get(name)
        if work is None or (measured is not None and not is_small(work)):
            continue
        found[name] = rate
        if measured is not None:
            over = measured.unit.beyond(rate.unit) * (work.units / work.num_items)
            found[name] = replace(
                rate, item=over, image_bytes=measured.image_bytes, item_bytes=measured.item_bytes
            )
    return found


class GivenRate(BaseModel):
    """One step's rate on a kind of worker, with its reason."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    per_s: float = Field(gt=0, description="units that one worker does in a second")
    unit: str = Field(description="what is counted, as `lvd plan --explain` names it for the step")
    written_bytes: float = Field(0, ge=0, description="bytes written for a unit")
    why: str = Field(min_length=1, description="the source of the number, or how it is derived")


class ReferenceFigure(BaseModel):
    """A figure to print beside the estimate."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    what: str = Field(description="whose figure it is")
    hours: float = Field(gt=0, description="hours that it names")
    notes: tuple[str, ...] = Field((), description="assumptions that explain the difference")


class PublishedTraining(BaseModel):
    """What somebody's training did."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    config: str = Field(description="the config of that training, such as one that comes with lvd")
    overrides: tuple[str, ...] = Field((), description="where it was another, each FIELD=VALUE")
    images_per_s: float = Field(gt=0, description="images with all their crops, on one card")
    why: str = Field(min_length=1, description="the source of the number, or how it is derived")


class RatesFile(BaseModel):
    """What a kind of worker that is not at hand can do."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str = Field(description="what one worker is")
    rates: dict[str, GivenRate] = Field(
        default_factory=dict, description="by step; steps that are missing are measured here"
    )
    training: tuple[PublishedTraining, ...] = Field((), description="of trainings of DINOv2")
    shares: Shares | None = Field(None, description="what is left on the way; null: measured")
    images: dict[str, int] = Field(default_factory=dict, description="images by pool, unless told otherwise")
    beside: ReferenceFigure | None = Field(None, description="printed beside the estimate")


def read_rates(path: str) -> RatesFile:
    """Read a file of given rates (YAML, or JSON, which is YAML too).

    Raises:
        ConfigError: it cannot be read, or is not of that form.
    """
    file = Path(path)
    if not file.is_file() and (Path(__file__).parent / path).is_file():
        file = Path(__file__).parent / path
    try:
        with file.open("rb") as stream:
            text = stream.read(MAX_FILE_BYTES)
    except OSError as error:
        raise ConfigError(f"No rates can be read at {path}", got=error.strerror) from error
    data = parse_yaml(text, where=path)
    try:
        return RatesFile.model_validate(data)
    except ValidationError as error:
        lines = fault_lines(error, RatesFile, data)
        raise ConfigError(f"{path} is no file of rates: " + "; ".join(lines)) from error


def given_rates(file: RatesFile, config: RunConfig, path: str) -> dict[str, Rate]:
    """The rates of a file, checked against the steps that the config runs.

    Raises:
        ConfigError: a rate is given in other units than its step counts in.
    """
    shares = file.shares or Shares(image_bytes=1, embedding_dim=1)
    sizes = Sizes(config, dict.fromkeys(config.pools, 1), shares)
    units = {work.key: work.unit for work in forecast(sizes)}
    found = {}
    for name, given in file.rates.items():
        if name not in units:
            continue
        if given.unit != units[name]:
            where = f"{path}: the rate of {name} is in other units"
            raise ConfigError(where, got=given.unit, expected=units[name])
        spent, source = Spent(1 / given.per_s, math.nan), f"{path} ({file.kind})"
        found[name] = Rate(spent, written_bytes=given.written_bytes, is_given=True, source=source)
    return found
