"""Seconds of a run on a Ray of two workers, beyond the start and end of Ray, against the executor `local`."""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from pipelines.demo.web import demo_config, draw_web

NUM_IMAGES, ROUNDS = 2_690, 3
START = """
from pipelines.engine.around_ray import prepare_ray_environment
prepare_ray_environment()
from pipelines.engine.on_ray import RayExecutor
RayExecutor(None, workers=2, num_cpus=2).close()
"""


def seconds(*arguments: str) -> float:
    """How long a Python of its own takes for this."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    return time.perf_counter() - start


def main() -> None:
    took: dict[str, list[float]] = {"local": [], "ray": [], "start": []}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        draw_web(root / "web", seed=0, num_images=NUM_IMAGES)
        config = root / "config.yaml"
        for number in range(ROUNDS):
            took["start"].append(seconds("-c", START))
            for kind in ("local", "ray"):
                config.write_text(yaml.safe_dump(demo_config(root / "web", root / f"{kind}-{number}")))
                flags = ("--executor", kind, *(("--workers", "2") if kind == "ray" else ()))
                took[kind].append(seconds("-m", "pipelines.cli", "run", str(config), *flags))
    local_s, ray_s, start_s = (statistics.median(took[name]) for name in ("local", "ray", "start"))
    print(
        json.dumps(
            {
                "what": "a run on Ray, beyond its start and end",
                "size": NUM_IMAGES,
                "rate": round(ray_s - start_s, 1),
                "unit": "s",
                "reference": "--executor local",
                "reference_rate": round(local_s, 1),
                "ratio": round((ray_s - start_s) / local_s, 2),
                "start_s": round(start_s, 1),
            }
        )
    )


if __name__ == "__main__":
    main()
