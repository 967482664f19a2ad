"""`lvd demo`: draw a web with known truth, curate it, and measure the outcome against the truth."""

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
from rich.console import Console

from curation import storage
from pipelines.answers import summary
from pipelines.config import validate
from pipelines.demo.score import failures, score, scores_table
from pipelines.demo.web import demo_config, draw_web
from pipelines.progress import Progress
from pipelines.run import run


def demo(out: str, *, seed: int, executor: str, as_json: bool) -> int:
    """Run the demo below `out`.

    Returns:
        0, or 1 when exact copies, re-encoded copies or leaks were missed.
    """
    root = Path(out).resolve()
    # A rerun measures a run, not what an earlier one left.
    storage.remove_tree(str(root))
    progress = Progress()
    started = time.monotonic()
    progress.say(f"drawing a small web below {root}")
    truth = draw_web(root / "web", seed=seed)
    progress.say(f"drawn in {time.monotonic() - started:.1f} s; curating it")
    settings = demo_config(root / "web", root / "run") | {"seed": seed, "executor": {"kind": executor}}
    config = validate(settings, where="the demo's config")
    result = run(config, progress=progress)
    assert result.manifest is not None
    entries = [storage.join(config.run_dir, entry["path"]) for entry in result.manifest["lineage"]]
    scores = score(truth, pa.concat_tables([storage.read_table(path) for path in entries]))
    missed = failures(scores)
    seconds = time.monotonic() - started
    if as_json:
        print(json.dumps({"scores": asdict(scores), "failures": missed, "seconds": seconds}))
    else:
        print(summary(config.run_dir, result.manifest))
        Console(file=sys.stdout).print(scores_table(scores))
        print(f"in {seconds:.0f} s; try: lvd explain {config.run_dir} IMAGE, lvd status {config.run_dir}")
    for line in missed:
        print(f"lvd demo: {line}", file=sys.stderr)
    return 1 if missed else 0
