"""A short measurement of this machine: the real steps on a small sample of the sources, and drawn vectors.

The sample tells what an image costs; what grows with pairs, `drawn_rates.py`, which is imported where it is
asked: it brings torch, for which no plan without a measurement waits.
"""

import resource
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import pyarrow as pa

from curation import storage
from curation.errors import ConfigError
from curation.ingest.listing import IndexTar, list_parts
from curation.ingest.rows import FoundRows
from curation.ingest.sources import COMPRESSED_TAR_SUFFIXES, Source
from curation.retrieve import SampleRetrieval
from curation.schema import IMAGES
from pipelines.config.run_config import RunConfig
from pipelines.engine.local import LocalExecutor
from pipelines.engine.progress import Progress
from pipelines.engine.runner import Runner
from pipelines.engine.step import FileRef
from pipelines.lvd import curate_parts
from pipelines.plan.dry_run import dry_run
from pipelines.plan.known import known_sizes
from pipelines.plan.rates import Rate, Spent, rates_of, with_drawn
from pipelines.rows.groups import AlikeParts, alike_parts
from pipelines.rows.parts import Part, read
from pipelines.stages.forecast import Sizes
from pipelines.stages.ingest.ingest import ingest
from pipelines.stages.retrieve.forecast import LIST_STEPS

SAMPLE_IMAGES = 384
WARM_IMAGES = 32
# Sources looked at; a config may have hundreds.
MAX_SOURCES = 12
# Listing stops being counted after so long: a bucket may take hours.
LIST_S = 60.0


@dataclass(frozen=True)
class SampledSources:
    """The first images of some sources."""

    tables: list[tuple[str, pa.Table]]  # rows of `schema.IMAGES`, each with its pool
    images: Mapping[str, int]  # by pool, as far as they were counted
    listed: tuple[AlikeParts, ...] = ()  # the parts that ingest has cut, if it is done
    listing: Spent | None = None  # what it took to list the sources here, if it was not
    counted: bool = True  # whether that came to its end


@dataclass(frozen=True)
class Probed:
    """What a probe has found."""

    rates: Mapping[str, Rate]
    sizes: Sizes  # images as far as they were counted
    counted: bool  # whether the listing came to its end
    worker_bytes: float  # memory of a process with models and libraries loaded


def probe(config: RunConfig, *, num_images: int = SAMPLE_IMAGES, progress: Progress | None = None) -> Probed:
    """Time every step on a sample of the sources, in a folder of its own that is removed afterwards.

    Where ingest has work to do, the sources are listed here.

    Args:
        config: with absolute paths.
        num_images: of the sample, about.
        progress: shows the steps that are measured; None: nothing is shown.

    Raises:
        ConfigError: a source cannot be sampled before it is staged, or has nothing to sample.
        LvdError: as the stages say.
    """
    shown, listed = progress or Progress(quiet=True), dry_run(config, ingest)
    if listed.made is not None:
        sampled = _sample_listed(config, listed.made, num_images)
    else:
        shown.say("listing the sources …")
        sampled = _sample(config, num_images)
    if not sampled.tables:
        raise ConfigError("The sources have no image to sample", remedy="Give `--like` or `--no-probe`")
    rates, sizes = _time(config, sampled.tables, shown, source=f"a sample of {num_images} images")
    sizes = replace(sizes, config=config, images=sampled.images, listed=sampled.listed)
    if sampled.listing is None:
        rates |= rates_of(sizes, listed.runner.receipts, source="this run's receipts")
    else:
        source = f"a listing of {sizes.total:,} images"
        rates["ingest"] = Rate(sampled.listing / max(sizes.total, 1), source=source)
    return Probed(rates, sizes, sampled.counted, held_bytes())


def _time(
    config: RunConfig, tables: Sequence[tuple[str, pa.Table]], progress: Progress, *, source: str
) -> tuple[dict[str, Rate], Sizes]:
    """The rates of a sample's steps, and how large it was."""
    from pipelines.plan.drawn_rates import drawn_rates

    with tempfile.TemporaryDirectory(prefix="lvd-plan-") as folder:
        small = _config_of_sample(config, folder)
        runner = Runner(folder, LocalExecutor(), progress)
        made = curate_parts(runner, small, _parts(small, tables, folder), refresh=False)
        sizes = known_sizes(small, made.parts, runner.receipts)
        progress.say("measuring searches on vectors drawn by lot …")
        drawn = drawn_rates(config, made.parts[-1])
    rates = with_drawn(rates_of(sizes, runner.receipts, source=source), drawn, sizes)
    return rates | {name: drawn[name] for name in LIST_STEPS}, sizes  # the sample is searched exactly


def held_bytes() -> float:
    """The most memory that this process has held, with the libraries that a worker holds too, bytes."""
    from curation.search import recall
    from pipelines.plan import drawn_rates

    assert drawn_rates, "it has loaded torch"
    assert recall, "it has loaded scipy"
    return 1024.0 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def worker_bytes(config: RunConfig) -> float:
    """Memory of a process with the libraries and models of describe, which is the largest there is.

    Raises:
        LvdError: a model cannot be loaded here.
    """
    from pipelines.models.embedders import load_embedder
    from pipelines.models.face_detectors import load_faces

    rule = config.describe
    models = [one for one in (rule.embed, rule.descriptor_embed, rule.heads_embed) if one is not None]
    held: list[object] = [load_embedder(one, threads=config.executor.threads) for one in models]
    held += [load_faces(rule.faces)] if rule.faces else []
    assert held, "they count while they are held"
    return held_bytes()


def _config_of_sample(config: RunConfig, folder: str) -> RunConfig:
    """The same run in another place. Few images show no recall and train no lists: none is asked for."""
    cells = config.dedup.cells.model_copy(update={"min_recall": 1e-6})
    dedup = config.dedup.model_copy(update={"cells": cells})
    pools = dict(config.pools)
    for name, pool in pools.items():
        if isinstance(pool.retrieve, SampleRetrieval):
            exact = pool.retrieve.model_copy(update={"search": "exact"})
            pools[name] = pool.model_copy(update={"retrieve": exact})
    return config.model_copy(update={"run_dir": folder, "dedup": dedup, "pools": pools})


def _rows_of_each(config: RunConfig, num_images: int, *, num_sources: int) -> int:
    """Images taken of each source: whole forwards."""
    rows = max(WARM_IMAGES, num_images // max(1, min(num_sources, MAX_SOURCES)))
    batch = config.describe.embed.batch_rows
    return -(-rows // batch) * batch


def _sample_listed(config: RunConfig, parts: Sequence[Part], num_images: int) -> SampledSources:
    """The first images of some parts of every pool."""
    images, chosen = dict.fromkeys(config.pools, 0), list[Part]()
    for name in config.pools:
        own = [part for part in parts if part.pool == name]
        images[name] = sum(part.num_rows for part in own)
        num = min(len(own), max(1, MAX_SOURCES // len(config.pools)))
        chosen += [own[i * len(own) // num] for i in range(num)]
    rows = _rows_of_each(config, num_images, num_sources=len(chosen))
    tables = [(part.pool, read(part.images).slice(0, rows)) for part in chosen]
    return SampledSources(tables, images, alike_parts(parts))


def _only_plain(index: IndexTar, files: Iterable[storage.FileInfo]) -> Iterator[FoundRows]:
    """The indexes of tars, which have ranges as long as they are not compressed."""
    for file in files:
        if file.key.lower().endswith(COMPRESSED_TAR_SUFFIXES):
            raise _to_be_staged("A compressed tar", file.path)
        yield index(file)


def _to_be_staged(what: str, path: str) -> ConfigError:
    return ConfigError(
        f"{what} cannot be sampled before it is staged",
        got=storage.redact(path),
        remedy="Run the config with `--until ingest` first, or give `--like RUN_DIR` or `--no-probe`",
    )


def _list(source: Source, part_rows: int, run_dir: str) -> Iterator[FoundRows]:
    if source.kind not in ("folder", "tars"):
        raise _to_be_staged(f"A source of kind {source.kind}", source.path)
    return list_parts(source, part_rows=part_rows, run_dir=run_dir, map_units=_only_plain)


def _sample(config: RunConfig, num_images: int) -> SampledSources:
    """The first images of each pool's first sources."""
    sources = [(name, s) for name, pool in config.pools.items() for s in pool.sources]
    per_source = _rows_of_each(config, num_images, num_sources=len(sources))
    tables, images = [], dict.fromkeys(config.pools, 0)
    started, cpu, counted = time.monotonic(), time.process_time(), True
    for number, (name, source) in enumerate(sources):
        listing = _list(source, per_source, config.run_dir)
        first = next(islice(listing, 1), None)
        if first is not None:
            images[name] += first.table.num_rows
            if number < MAX_SOURCES and first.table.num_rows:
                tables.append((name, first.table))
        for part in listing:
            images[name] += part.table.num_rows
            if time.monotonic() - started > LIST_S:
                counted = False
                break
    spent = Spent(time.monotonic() - started, time.process_time() - cpu)
    return SampledSources(tables, images, listing=spent, counted=counted)


def _parts(config: RunConfig, tables: Sequence[tuple[str, pa.Table]], folder: str) -> tuple[Part, ...]:
    """Parts of the sample. A few images go ahead as a part of their own, on which the models warm up."""
    cut = []
    for number, (pool, table) in enumerate(tables):
        warm = min(WARM_IMAGES, table.num_rows // 2) if number == 0 else 0
        cut += [(pool, piece) for piece in (table.slice(0, warm), table.slice(warm)) if piece.num_rows]
    parts: list[Part] = []
    for number, (pool, table) in enumerate(cut):
        path = Path(folder) / f"listed-{number:03d}.parquet"
        storage.write_table(path, table.cast(IMAGES))
        sha256, num_bytes = storage.sha256_file(str(path))
        offset = parts[-1].offset + parts[-1].num_rows if parts else 0
        ref = FileRef(str(path), num_bytes, sha256)
        parts.append(Part(number, pool, config.pools[pool].role, offset, table.num_rows, ref))
    return tuple(parts)
