"""Which images a training sees: one dataset, or several mixed by weight."""

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pretrain.data.order import MIX_BLOCK, shares_of
from pretrain.data.tar_listing import IMAGE_EXTENSIONS

_WHAT = (
    "a run directory of `lvd run`, or its manifest.json, a path or a URL; or tars of anybody's: "
    "`/data/in-{000000..000099}.tar`, `/data/**/*.tar`, `https://host/in-{00..09}.tar`, `s3://bucket/*.tar`, "
    "`pipe:COMMAND` (see `allow_pipe`)"
)


class MixedDataset(BaseModel):
    """One of several datasets that are mixed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str = Field(description="as `data.path`; no stream, which nobody can resume exactly")
    weight: float = Field(
        1.0, gt=0, allow_inf_nan=False, description="its share of the images, beside the other weights"
    )
    name: str | None = Field(None, description="for people; null: the last part of its path")


class DataConfig(BaseModel):
    """Which images are trained on, and how they are read."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str | None = Field(None, description=_WHAT)
    mix: tuple[MixedDataset, ...] | None = Field(
        None, min_length=1, description="several datasets by weight, instead of `path`"
    )
    extensions: tuple[str, ...] = Field(
        IMAGE_EXTENSIONS,
        min_length=1,
        description="members of others' tars that are images: what follows the first dot of their name, as "
        "WebDataset has it, in lower case (`x.seg.png` is a `seg.png`)",
    )
    allow_pipe: bool = Field(False, description="whether a `pipe:` in a path may run its command in a shell")
    allow_repeats: bool = Field(
        False,
        description="whether a dataset smaller than its part of a batch is trained on, each image several "
        "times in a batch; KoLeo then pushes an image from itself",
    )
    workers: int = Field(2, ge=0, description="processes that decode and crop, for each rank; 0: in its own")
    prefetch: int = Field(4, ge=1, description="batches that a worker makes ahead")
    read_threads: int = Field(8, ge=1, description="reads at once in a worker, of shards on an object store")
    window_images: int = Field(
        100_000, ge=1, description="shards on an object store: images that are shuffled among one another"
    )
    buffer_images: int = Field(
        1_000, ge=1, description="streams: images that a worker holds, and gives out in random order"
    )
    spool_dir: str | None = Field(
        None,
        description="shards on an object store: copies lie, while in use, in a folder of the user's own in "
        "this one; null: in the machine's temporary folder",
    )
    spool_bytes: int = Field(50_000_000_000, ge=1, description="bytes of those copies at most")

    @model_validator(mode="after")
    def _one_or_several(self) -> "DataConfig":
        if self.mix is None:
            return self
        if self.path is not None:
            raise ValueError(
                "path and mix are both set: one dataset has a path, several are a mix; set the other to null"
            )
        shares = shares_of([part.weight for part in self.mix])
        for part, share in zip(self.mix, shares, strict=True):
            if not share:
                raise ValueError(
                    f"weight {part.weight} of {part.path} comes to less than one image in {MIX_BLOCK:,}"
                )
        return self

    @model_validator(mode="after")
    def _extensions_are_bare(self) -> "DataConfig":
        if odd := [one for one in self.extensions if one != one.lower().strip(".") or not one]:
            raise ValueError(f"extensions has {odd[0]!r}; write it in lower case and without its dot")
        return self

    @property
    def has_data(self) -> bool:
        """Whether it says what is trained on."""
        return self.path is not None or self.mix is not None

    def name_of(self, part: MixedDataset) -> str:
        """What a dataset of the mixture is called."""
        return part.name or part.path.rstrip("/").rpartition("/")[2]
