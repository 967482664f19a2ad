"""Faces: how many there are, how many were blurred, and examples as they stand in the dataset."""

from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc

from curation.shard.layout import ShardConfig
from pipelines.answers.lineage import Lineage
from pipelines.lvd import Curated
from pipelines.report.pictures import Picture, pictures_at, sample
from pipelines.rows.parts import read

NUM_EXAMPLES = 11  # as many as a line holds


@dataclass(frozen=True)
class Faces:
    """All that the page says of faces."""

    num_images: int  # with a face, of all described
    num: int  # faces in them
    num_images_kept: int  # of these images, in the dataset
    num_kept: int  # faces in those
    is_blurred: bool  # whether the dataset has them blurred
    examples: tuple[tuple[Picture, int], ...]  # of the dataset, with their number of faces


def gather_faces(lineage: Lineage, made: Curated | None, *, config: ShardConfig, seed: int) -> Faces | None:
    """Count the faces that are blurred, or would be; None where none were looked for, or no longer known."""
    if made is None or any(part.faces is None for part in made.parts):
        return None
    least = config.blur_faces.min_score if config.blur_faces is not None else None
    rows, counts = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for part in made.parts:
        table = read(part.faces, ["row", "score"])
        if least is not None:
            table = table.filter(pc.greater_equal(table["score"], np.float32(least)))
        mine, num = np.unique(table["row"].to_numpy(), return_counts=True)
        rows.append(mine.astype(np.int64) + part.offset)
        counts.append(num.astype(np.int64))
    images, num_faces = np.concatenate(rows), np.concatenate(counts)
    kept = np.isin(images, lineage.kept())
    of = dict(zip(images.tolist(), num_faces.tolist(), strict=True))
    shown = sample(images[kept], NUM_EXAMPLES, seed=seed).tolist()
    pictures = pictures_at(lineage, shown)
    return Faces(
        len(images),
        int(num_faces.sum()),
        int(kept.sum()),
        int(num_faces[kept].sum()),
        config.blur_faces is not None,
        tuple((pictures[row], of[row]) for row in shown),
    )
