"""How fast a training goes: as it went so far, as another one went, as measured here, or as published."""

import math
import statistics
from dataclasses import dataclass, replace
from pathlib import Path

from curation.errors import ConfigError
from pipelines.config.read import ALL_FOLDERS, read_config, read_yaml
from pipelines.plan.rates import PublishedTraining, RatesFile
from pipelines.plan.training.shapes import Cards, shape_of
from pipelines.training.first_word import RESOLVED
from pipelines.training.pretraining import validate
from pretrain.checkpoint_files import complete_steps, read_facts, step_dir
from pretrain.config import PretrainConfig
from pretrain.cost.shape import TrainingShape
from pretrain.cost.work import image_flops
from pretrain.metrics import read_metrics

WARM_UP_STEPS = 10  # of a training: workers start, kernels are chosen, blocks are compiled
RECENT_STEPS = 500
# Below so much of a step, the time in which it gets its batch is not that of making one.
WAITS_FOR_DATA = 0.05


@dataclass(frozen=True)
class Speed:
    """What one card, and the processes that load for it, take.

    Args:
        image_s: of the card, for an image.
        source: where it comes from, in words.
        step_s: of the card, for a step besides.
        load_image_s: to read, decode and crop an image with all processes of a rank; None: not known, or
            so short that nobody waited for it.
        knows_loading: which of the two it is.
        num_done: iterations that the training has behind it.
        is_published: whether somebody else's card and code were timed.
    """

    image_s: float
    source: str
    step_s: float = 0.0
    load_image_s: float | None = None
    knows_loading: bool = False
    num_done: int = 0
    is_published: bool = False

    def of_step(self, images: int) -> float:
        """Seconds of a step of so many images of a rank."""
        return max(self.step_s + images * self.image_s, images * (self.load_image_s or 0.0))

    def is_loading(self, images: int) -> bool:
        """Whether the card waits for data."""
        return self.of_step(images) > self.step_s + images * self.image_s

    def scaled(self, factor: float) -> "Speed":
        """For a training of so many times the operations for an image; what is loaded is the same."""
        return replace(self, image_s=self.image_s * factor)


def own_speed(config: PretrainConfig, shape: TrainingShape) -> Speed | None:
    """How fast this training went so far, if its shape was the same; None where it has not begun."""
    assert config.run_dir is not None
    found = _speed_of(Path(config.run_dir))
    if found is None:
        return None
    speed, shape_then = found
    return speed if image_flops(shape_then) == image_flops(shape) else None


def speed_like(run_dir: str, shape: TrainingShape) -> Speed:
    """As another training went, scaled by the operations for an image where it is of another shape.

    Raises:
        ConfigError: when there is no training that tells.
    """
    folder = Path(run_dir)
    places = (folder, folder / "pretrain")
    found = next((one for place in places if (one := _speed_of(place)) is not None), None)
    if found is None:
        raise ConfigError(
            f"{run_dir} tells no rates of a training",
            got=f"no {RESOLVED} with the lines of more than {WARM_UP_STEPS} steps in a metrics.jsonl",
            expected="the run_dir of `lvd pretrain`",
        )
    speed, shape_then = found
    return replace(speed, num_done=0).scaled(image_flops(shape) / image_flops(shape_then))


def published_speed(file: RatesFile, path: str, shape: TrainingShape) -> Speed | None:
    """From published images/s: of the run whose operations for an image are nearest, scaled by them."""
    if not file.training:
        return None
    flops = image_flops(shape)
    known = [(one, _published_flops(one, path)) for one in file.training]
    run, flops_then = min(known, key=lambda pair: abs(math.log(flops / pair[1])))
    factor = flops / flops_then
    scaled = "" if factor == 1 else f"; an image takes {factor:.2f} times as many operations here"
    source = f"{path} ({file.kind}): {run.config} as published, {run.images_per_s:g} images/s{scaled}"
    return Speed(factor / run.images_per_s, source, is_published=True)


def _published_flops(run: PublishedTraining, path: str) -> float:
    file, data = read_config(run.config, run.overrides, folders=ALL_FOLDERS)
    return image_flops(shape_of(validate(data, where=f"{path}: {file}"), Cards()))


def _speed_of(run_dir: Path) -> tuple[Speed, TrainingShape] | None:
    """What the metrics of a training tell, and the shape that it had; None where they tell nothing."""
    if not (run_dir / RESOLVED).is_file():
        return None
    records = [record for record in read_metrics(run_dir) if record.get("step_s")]
    timed = records[WARM_UP_STEPS:][-RECENT_STEPS:]
    if not timed:
        return None
    config = validate(read_yaml(run_dir / RESOLVED), where=str(run_dir / RESOLVED))
    ranks = _ranks_of(run_dir, config)
    images = config.batch_images / ranks
    step_s = statistics.median(record["step_s"] for record in timed)
    waits = statistics.median(record["data_wait"] for record in timed)
    loading = step_s / images if waits > WAITS_FOR_DATA else None
    source = f"{run_dir / 'metrics.jsonl'} ({len(timed):,} steps)"
    done = int(records[-1]["step"])
    speed = Speed(
        step_s * (1 - waits) / images, source, load_image_s=loading, knows_loading=True, num_done=done
    )
    return speed, shape_of(config, Cards(ranks))


def _ranks_of(run_dir: Path, config: PretrainConfig) -> int:
    """The ranks of a training: its newest checkpoint says, or else its config."""
    if steps := complete_steps(run_dir):
        return int(read_facts(step_dir(run_dir, max(steps)))["num_ranks"])
    return config.parallel.processes
