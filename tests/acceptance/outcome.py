"""What a finished run left, read with nothing of `lvd` but the form of its tables."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


class Outcome:
    """The dataset that a run directory's manifest names."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.manifest: dict[str, Any] = json.loads((run_dir / "manifest.json").read_text())
        self.lineage = self._table("lineage")
        self.selection = self._table("selection")

    @property
    def shards(self) -> list[Path]:
        """The tars, in order."""
        return [self.run_dir / shard["path"] for shard in self.manifest["shards"]]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The lineage; its order is that of global rows."""
        return self.lineage.to_pylist()

    def digests(self) -> dict[str, str]:
        """What must be the same whoever did the work: a digest of each file, and the manifest's lists."""
        folder = self.run_dir / self.manifest["dataset_dir"]
        files = {
            str(path.relative_to(self.run_dir)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path.name != "report.html"
        }
        lists = (
            "counts",
            "funnel",
            "lineage",
            "selection",
            "shards",
            "complete",
            "unread",
            "notes",
            "losses",
        )
        return files | {name: json.dumps(self.manifest[name]) for name in lists}

    def step_file(self, step: str, name: str) -> Path:
        """An intermediate file of a step that was done once."""
        [path] = (self.run_dir / "steps" / step).glob(f"*/{name}")
        return path

    def _table(self, kind: str) -> pa.Table:
        return pa.concat_tables([pq.read_table(self.run_dir / e["path"]) for e in self.manifest[kind]])
