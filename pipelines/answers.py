"""Answers about a run: how far it is, what it came to, and what became of an image."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curation import storage
from curation.errors import ConfigError, IntegrityError
from pipelines.lock import owner
from pipelines.runner import StepState
from pipelines.stages.dataset import report_path

MAX_MATCHES = 20


def read_manifest(run_dir: str) -> dict[str, Any]:
    """The manifest of a finished run.

    Raises:
        ConfigError: when `run_dir` has none.
        IntegrityError: when it is damaged.
    """
    path = storage.join(run_dir, "manifest.json")
    try:
        return json.loads(storage.read_bytes(path))
    except FileNotFoundError as error:
        raise ConfigError(
            f"No finished dataset in {run_dir}",
            got="no manifest.json",
            expected="the run_dir of a run that has ended",
            remedy=f"`lvd status {run_dir}` tells how far it is",
        ) from error
    except ValueError as error:
        remedy = "Run the same config again: it is replaced"
        raise IntegrityError(f"{path} is damaged", got=error, remedy=remedy) from error


def summary(run_dir: str, manifest: dict[str, Any]) -> str:
    """What a run came to, in a few lines."""
    rows: list[tuple[str, ...]] = [("pool", "images", "rejected", "duplicates", "leaks", "kept")]
    for pool, count in manifest["counts"].items():
        if pool != "dataset":
            names = ("images", "rejected", "duplicates", "contaminated", "kept")
            rows.append((pool, *(f"{count[name]:,}" for name in names)))
    lines = table_lines(rows)
    num_bytes = sum(shard["bytes"] for shard in manifest["shards"])
    total = f"{manifest['counts']['dataset']:,} images in {len(manifest['shards'])} shards"
    lines.append(f"{total}, {num_bytes / 1e6:,.1f} MB")
    lines.append(f"report: {report_path(run_dir, manifest)}")
    if not manifest["complete"]:
        lines.append("DEGRADED: some sources could not be read; `--refresh` tries them again:")
        lines += [f"  {_unread_line(entry)}" for entry in manifest["unread"][:MAX_MATCHES]]
    return "\n".join(lines)


def _unread_line(entry: dict[str, Any]) -> str:
    where = entry.get("path") or entry.get("pool")
    at = f" at byte {entry['offset']}" if entry.get("offset") is not None else ""
    return f"{where}: {entry['what']}{at}: {entry['detail']}"


def plan_lines(states: Sequence[StepState]) -> list[str]:
    """The steps of a plan as a table."""
    rows: list[tuple[str, ...]] = [("stage", "step", "items", "done", "to do", "images to do")]
    for state in states:
        numbers = (state.num_items, state.num_done, state.num_items - state.num_done)
        images = f"{state.num_rows:,}" if state.num_rows else ""
        rows.append((state.stage, state.name, *(f"{number:,}" for number in numbers), images))
    if all(state.num_done == state.num_items for state in states):
        return [*table_lines(rows), "everything is done"]
    rows += [("", name, "", "", "", "") for name in _steps_to_come(states)]
    return [
        *table_lines(rows),
        f"what {states[-1].name} gives decides how much the steps after it have to do",
    ]


def plan_table(states: Sequence[StepState]) -> list[dict[str, Any]]:
    """The steps of a plan, and those to come, whose numbers are not known yet."""
    unknown = dict.fromkeys(("stage", "num_items", "num_done", "num_rows"))
    return [*(vars(state) for state in states), *({"name": n} | unknown for n in _steps_to_come(states))]


def _steps_to_come(states: Sequence[StepState]) -> list[str]:
    from pipelines.lvd import STEP_NAMES

    return [name for name in STEP_NAMES if name not in {state.name for state in states}]


def status(run_dir: str) -> dict[str, Any]:
    """Owner, steps and manifest of a run directory.

    Raises:
        ConfigError: when no run has begun there.
    """
    # The flow brings torch along; the other answers do without, and come at once.
    from pipelines.config import read_yaml, validate
    from pipelines.run import plan

    file = Path(storage.local_path(run_dir)) / "run.yaml"
    if not file.is_file():
        raise ConfigError(
            f"{run_dir} is no run directory", got="no run.yaml", expected="the run_dir of a run"
        )
    text = storage.read_bytes(str(file))
    config = validate(read_yaml(file), where=str(file))
    states = plan(config.model_copy(update={"run_dir": run_dir}))
    try:
        manifest = read_manifest(run_dir)
    except ConfigError:
        manifest = None
    return {
        "run_dir": run_dir,
        "owner": owner(run_dir),
        "steps": [vars(state) for state in states],
        "finished": bool(states) and states[-1].num_done == states[-1].num_items,
        "counts": manifest and manifest["counts"],
        "complete": manifest and manifest["complete"],
        "config_is_same": manifest and manifest["config_sha256"] == hashlib.sha256(text).hexdigest(),
        "created": manifest and manifest["created"],
    }


def status_lines(found: dict[str, Any]) -> list[str]:
    """A status for people."""
    lines = [f"owned by {found['owner']}" if found["owner"] else "no run is on it now"]
    lines += plan_lines([StepState(**state) for state in found["steps"]])
    if found["created"]:
        whole = "complete" if found["complete"] else "DEGRADED"
        older = "" if found["config_is_same"] else "; made with another config than the one now in run.yaml"
        lines.append(f"dataset of {found['created']}: {found['counts']['dataset']:,} images, {whole}{older}")
    return lines


def explain(run_dir: str, image: str, *, pool: str | None) -> dict[str, Any]:
    """The lineage of every image whose key is `image`, or whose id begins with it.

    Raises:
        ConfigError: when there is none.
    """
    manifest = read_manifest(run_dir)
    found: list[dict[str, Any]] = []
    for entry in manifest["lineage"]:
        table = storage.read_table(storage.join(run_dir, entry["path"]))
        match = pc.equal(table["key"], image)
        if len(image) >= 6 and not set(image) - set("0123456789abcdef"):
            match = pc.or_(match, pc.fill_null(pc.starts_with(table["image_id"], image), False))
        if pool is not None:
            match = pc.and_(match, pc.equal(table["pool"], pool))
        found += table.filter(match).slice(0, MAX_MATCHES - len(found)).to_pylist()
    if not found:
        raise ConfigError(
            f"No image {image!r} in {run_dir}" + (f", pool {pool}" if pool else ""),
            expected="a key as the listing has it (the path below the source), or six digits of an image id",
        )
    for row in found:
        row["copies"] = _component(run_dir, manifest, row) if row["component"] is not None else []
    return {"images": found}


def _component(run_dir: str, manifest: dict[str, Any], row: dict[str, Any]) -> list[dict[str, Any]]:
    members: list[dict[str, Any]] = []
    columns = ["pool", "key", "decision", "reason", "score", "component"]
    for entry in manifest["lineage"]:
        table = storage.read_table(storage.join(run_dir, entry["path"]), columns)
        same = pc.equal(table["component"], pa.scalar(row["component"], pa.int64()))
        mine = table.filter(pc.fill_null(same, False))
        members += mine.slice(0, MAX_MATCHES - len(members)).to_pylist()
    return members


def explain_lines(found: dict[str, Any]) -> list[str]:
    """An explanation for people."""
    lines: list[str] = []
    for row in found["images"]:
        size = f"{row['width']} × {row['height']} px {row['format']}" if row["width"] else "not decoded"
        name = row["image_id"] or "none: no bytes were read"
        lines += [f"{row['pool']}/{row['key']}", f"  image id   {name}, {size}"]
        lines += [f"  where      {row['uri']}", f"  {row['decision']:<10} at {row['stage']}: {row['reason']}"]
        if row["by_key"] is not None:
            score = "" if row["score"] is None else f", score {row['score']:.4f}"
            lines.append(f"  because of {row['by_pool']}/{row['by_key']}{score}")
        if row["cluster"] is not None:
            lines.append(f"  cluster    {row['cluster']}")
        if row["shard"] is not None:
            lines.append(f"  shard      {row['shard']}, sample {row['shard_index']}")
        if row["copies"]:
            lines.append(f"  component  {row['component']}, {len(row['copies'])} images:")
            lines += [f"    {m['decision']:<8}{m['reason']:<22}{m['pool']}/{m['key']}" for m in row["copies"]]
    return lines


def table_lines(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns of text: words to the left, numbers to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    is_number = [all(row[i][:1].isdigit() or not row[i] for row in rows[1:]) for i in range(len(widths))]
    return [
        "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(row, widths, is_number, strict=True)
        ).rstrip()
        for row in rows
    ]
