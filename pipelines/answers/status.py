"""How far a run is, and what it came to."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from curation import storage
from curation.ingest.problems import finding_line
from curation.printed import visible
from curation.shard.manifest import Manifest
from pipelines.answers.finished_run import find_run
from pipelines.config.run_dir import config_file, read_run_config
from pipelines.engine.lock import owner
from pipelines.engine.runner import StepState
from pipelines.plan.how_far import how_far, plan_lines, steps_to_come
from pipelines.stages.shard.dataset import report_path
from pipelines.words import MEANING, counted, table_lines

MAX_MATCHES = 20


def summary_lines(run_dir: str, manifest: Manifest) -> list[str]:
    """What a run came to, in a few lines."""
    rows: list[tuple[str, ...]] = [
        ("pool", "images", "rejected", "duplicates", "leaks", "not chosen", "kept")
    ]
    for pool, count in manifest["counts"].items():
        if pool != "dataset":
            lost = [count[name] for name in ("rejected", "duplicates", "contaminated")]
            others = count["images"] - sum(lost) - count["kept"]  # not retrieved, beyond a cap, a holdout
            rows.append((pool, *(f"{num:,}" for num in (count["images"], *lost, others, count["kept"]))))
    lines = table_lines(rows)
    num_bytes = sum(shard["bytes"] for shard in manifest["shards"])
    total = f"{manifest['counts']['dataset']:,} images in {counted(len(manifest['shards']), 'shard')}"
    lines.append(f"{total}, {num_bytes / 1e6:,.1f} MB")
    lines.append(f"report: {report_path(run_dir, manifest)}")
    lines += _note_lines(manifest.get("notes", []))
    lines += [loss_line(loss) for loss in manifest.get("losses", [])]
    if not manifest["complete"]:
        may_mend = any(entry["what"] != "name_not_utf8" for entry in manifest["unread"])
        again = "; `--refresh` tries them again" if may_mend else ""
        lines.append(f"DEGRADED: some sources could not be read{again}:")
        lines += [f"  {finding_line(entry)}" for entry in manifest["unread"][:MAX_MATCHES]]
    if not manifest["counts"]["dataset"]:
        lines.append("EMPTY: no image is in the dataset.")
    return lines


def _note_lines(notes: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each kind of note, with the first of its kind."""
    kinds: dict[str, list[Mapping[str, Any]]] = {}
    for note in notes:
        kinds.setdefault(note["what"], []).append(note)
    return [
        f"note: {finding_line(first)}" + (f" (and {len(others):,} more, in manifest.json)" if others else "")
        for first, *others in kinds.values()
    ]


def loss_line(loss: Mapping[str, Any]) -> str:
    """What a stage took a pool away for, in a sentence or two."""
    pool, stage, reason = visible(loss["pool"]), loss["stage"], loss["reason"]
    if reason is None:
        return f"NOTHING IN pool {pool}: its sources hold no image. Check their paths and kinds."
    left = f"{loss['num_out']:,} of {loss['num_in']:,} are" if loss["num_out"] else "nothing is"
    lines = f"LOST: of pool {pool} {left} left after {stage}: {loss['num_dropped']:,} × {reason}"
    lines += f" ({MEANING[reason].rstrip('.')})"
    if loss["example"] is not None:
        lines += f", such as {visible(loss['example'])}"
    if loss["survivor"] is not None:
        lines += f"; {visible(loss['survivor'])} is left"
    return f"{lines}."


def status(run_dir: str) -> dict[str, Any]:
    """Owner, steps and manifest of a run directory.

    Raises:
        ConfigError: when no run has begun there.
    """
    config = read_run_config(run_dir)
    states = how_far(config)
    text = storage.read_bytes(str(config_file(run_dir)))
    run = find_run(run_dir)
    manifest = run and run.manifest
    return {
        "run_dir": run_dir,
        "owner": owner(run_dir),
        "steps": [vars(state) for state in states],
        "to_come": steps_to_come(states, config),
        "finished": bool(states) and states[-1].num_done == states[-1].num_items,
        "counts": manifest and manifest["counts"],
        "complete": manifest and manifest["complete"],
        "losses": manifest and manifest.get("losses", []),
        "config_is_same": manifest and manifest["config_sha256"] == hashlib.sha256(text).hexdigest(),
        "created": manifest and manifest["created"],
    }


def status_lines(found: dict[str, Any]) -> list[str]:
    """A status for people."""
    lines = [f"owned by {found['owner']}" if found["owner"] else "no run is on it now"]
    lines += plan_lines([StepState(**state) for state in found["steps"]], found["to_come"])
    if found["created"]:
        whole = "complete" if found["complete"] else "DEGRADED"
        older = "" if found["config_is_same"] else "; made with another config than the one now in run.yaml"
        lines.append(f"dataset of {found['created']}: {found['counts']['dataset']:,} images, {whole}{older}")
        lines += [loss_line(loss) for loss in found["losses"]]
    return lines
