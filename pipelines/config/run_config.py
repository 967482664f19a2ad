"""The root config: what a run is made of. It is split into stage configs here, and never passed down."""

import hashlib
import os
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError, model_validator

from curation import storage
from curation.cluster.config import ClusterConfig, HierarchyConfig
from curation.dedup.config import DedupConfig
from curation.dedup.decontaminate import DecontaminateConfig
from curation.describe.describe import DescribeConfig
from curation.describe.embed import parse_embedder
from curation.describe.filters import JudgeConfig
from curation.errors import ConfigError
from curation.ingest.sources import Source
from curation.printed import redacted
from curation.retrieve import Retrieval, SampleRetrieval
from curation.schema import Role
from curation.select import SelectConfig
from curation.shard.layout import ShardConfig
from pipelines.config.faults import fault_lines, secret_lines
from pipelines.config.read import read_config
from pipelines.config.strict_yaml import dump_yaml


class PoolConfig(BaseModel, frozen=True, extra="forbid"):
    """A named set of images with a role."""

    role: Role = Field(
        description="curated (trusted anchors), uncurated (to be searched) or holdout (must not leak)"
    )
    sources: tuple[Source, ...] = Field(min_length=1, description="where the pool's images lie, in order")
    retrieve: Retrieval | None = Field(
        None,
        description="curated pools: how they retrieve from the pool; default: sample, 4 neighbours",
    )
    include: bool = Field(
        True,
        description="curated pools: whether their own images enter; where not, they only serve to find "
        "others, and neither are nor make copies",
    )

    @model_validator(mode="after")
    def _only_curated_retrieve(self) -> "PoolConfig":
        if self.retrieve is not None and self.role != "curated":
            raise ValueError(f"`retrieve` is for curated pools, and this one is {self.role}; remove it")
        if not self.include and self.role != "curated":
            raise ValueError(f"`include` is for curated pools, and this one is {self.role}; remove it")
        if not self.include and self.retrieval.method == "none":
            raise ValueError("this pool neither enters nor retrieves; remove it, or set one of the two")
        return self

    @property
    def retrieval(self) -> Retrieval:
        """The rule in force."""
        return self.retrieve or SampleRetrieval(method="sample")

    @property
    def may_enter_dataset(self) -> bool:
        """Whether its images may enter the dataset."""
        return self.role != "holdout" and self.include


class IngestConfig(BaseModel, frozen=True, extra="forbid"):
    """How listings are cut into parts."""

    part_rows: int = Field(
        10_000, ge=1, le=1 << 20, description="images of a part: the unit of work and resume"
    )


class ExecutorConfig(BaseModel, frozen=True, extra="forbid"):
    """Where the work is done. Nothing here changes what comes out, but for `threads` where a model runs."""

    kind: Literal["auto", "ray", "local"] = Field(
        "auto",
        description="ray, or local: in this process, without Ray; auto: local where a Ray of our own could "
        "run one worker only",
    )
    address: str | None = Field(None, description="of a running Ray cluster; null starts one on this machine")
    workers: int | None = Field(None, ge=1, description="at most so many workers; null: what the cores carry")
    num_cpus: int | None = Field(
        None, ge=1, description="cores that a Ray of our own offers; null: the machine's"
    )
    threads: int = Field(
        2, ge=1, description="cores of a worker; the order of a model's sums depends on it, so it is fixed"
    )

    @property
    def num_workers(self) -> int:
        """Workers that a Ray of our own could run on this machine."""
        cores = self.num_cpus or len(os.sched_getaffinity(0))
        return min(self.workers or cores, max(1, cores // self.threads))

    @property
    def chosen(self) -> Literal["ray", "local"]:
        """What `auto` stands for: a single worker is this process, which has its imports behind it."""
        if self.kind != "auto":
            return self.kind
        return "local" if self.address is None and self.num_workers == 1 else "ray"


class RunConfig(BaseModel, frozen=True, extra="forbid"):
    """One curation run, and the training on what it gives, if there is one."""

    name: str = Field(
        "dataset", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$", description="of the dataset and its shards"
    )
    run_dir: str = Field(description="the folder that the run writes, seen by every worker")
    root: str = Field("", description="put before every relative path of a source")
    seed: int = Field(0, ge=0, lt=1 << 63, description="of everything random")
    pools: dict[str, PoolConfig] = Field(min_length=1, description="by name; their order breaks ties")
    ingest: IngestConfig = IngestConfig()
    describe: DescribeConfig = DescribeConfig()
    judge: JudgeConfig = JudgeConfig()
    dedup: DedupConfig = DedupConfig()
    decontaminate: DecontaminateConfig = DecontaminateConfig()
    cluster: ClusterConfig = ClusterConfig()
    hierarchy: HierarchyConfig | None = Field(
        None, description="levels of clusters above those of `cluster`, for a balanced sample; null: none"
    )
    select: SelectConfig = SelectConfig()
    shard: ShardConfig = ShardConfig()
    executor: ExecutorConfig = ExecutorConfig()
    # A mapping: the model behind it takes seconds to import, for which a run without it shall not wait.
    pretrain: dict[str, Any] | None = Field(
        None,
        description="a training on the dataset, once it is there; `data.path` is this run's directory "
        "and `run_dir` lies below it where not given; null: none; see `pretrain`",
    )

    def is_decontaminated(self, pool: str) -> bool:
        """Whether images of a pool that leak an evaluation image are dropped."""
        rule = self.pools[pool]
        return rule.may_enter_dataset and (self.decontaminate.curated or rule.role != "curated")

    @model_validator(mode="after")
    def _something_to_curate(self) -> "RunConfig":
        if all(pool.role == "holdout" for pool in self.pools.values()):
            raise ValueError(
                "every pool is a holdout, so nothing could be selected; add a curated or an uncurated pool"
            )
        return self

    @model_validator(mode="after")
    def _thresholds_have_vectors(self) -> "RunConfig":
        for name, stage in (("dedup", self.dedup), ("decontaminate", self.decontaminate)):
            compared = {"cosine_threshold": stage.cosine_threshold, "pca_radius": stage.pca_radius}
            for field, value in compared.items():
                if value is not None and self.describe.descriptor is None:
                    raise ValueError(
                        f"{name}.{field} ({value}) compares copy descriptors, and none are made; set "
                        "describe.descriptor (to gist, or to the embedder), or set it to null"
                    )
        return self

    @model_validator(mode="after")
    def _components_have_edges(self) -> "RunConfig":
        asked, floor = self.decontaminate.component_threshold, self.dedup.saved_from
        if asked is not None and (floor is None or asked < floor):
            raise ValueError(
                f"decontaminate.component_threshold ({asked}) is below the cosine from which dedup saves "
                f"edges ({floor}); set dedup.edge_floor to it or below, or set it to null"
            )
        return self

    @model_validator(mode="after")
    def _thresholds_have_scores(self) -> "RunConfig":
        judge, heads = self.judge, self.describe.heads
        limits = {
            "max_nsfw": (judge.max_nsfw, heads.nsfw, "nsfw"),
            "min_aesthetic": (judge.min_aesthetic, heads.aesthetic, "aesthetic"),
            "max_watermark": (judge.max_watermark, heads.watermark, "watermark"),
        }
        for field, (limit, head, name) in limits.items():
            if limit is not None and head is None:
                raise ValueError(
                    f"judge.{field} ({limit}) is a bound on a score that no head makes; set "
                    f"describe.heads.{name}, or set it to null"
                )
        if self.shard.blur_faces is not None and self.describe.faces is None:
            raise ValueError(
                "shard.blur_faces blurs what describe.faces finds, and no faces are looked for; set "
                "describe.faces (to {} for OpenCV's own cascade), or remove shard.blur_faces"
            )
        return self

    @model_validator(mode="after")
    def _bands_stay_whole(self) -> "RunConfig":
        edits = {"max_side_px": self.shard.max_side_px, "blur_faces": self.shard.blur_faces}
        for field, value in edits.items():
            if value is not None and self.describe.decode.bands is not None:
                raise ValueError(
                    f"shard.{field} would put 8-bit pictures of what is looked at in the place of all "
                    "bands; set it to null, or remove describe.decode.bands"
                )
        return self

    @model_validator(mode="after")
    def _levels_stand_on_clusters(self) -> "RunConfig":
        if self.hierarchy is None or self.cluster.num_clusters is None:
            return self
        num_leaves = self.cluster.num_clusters * self.hierarchy.splits
        if self.hierarchy.levels[0].num_clusters >= num_leaves:
            raise ValueError(
                f"hierarchy.levels.0.num_clusters ({self.hierarchy.levels[0].num_clusters}) must be less "
                f"than the leaves below it, cluster.num_clusters × hierarchy.splits ({num_leaves})"
            )
        return self


def load_config(path: str, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a YAML file, apply `a.b=c` overrides, and validate.

    Args:
        path: the file; a bare name such as `real_photos.yaml` is also looked for among the configs that come
            with lvd.
        overrides: each `a.b.0.c=value`, the value in YAML.

    Raises:
        ConfigError: naming the file, the field, the value and what is allowed.
    """
    file, data = read_config(path, overrides)
    return validate(data, where=str(file))


def validate(data: dict[str, Any], *, where: str) -> RunConfig:
    """The config that `data` is.

    Raises:
        ConfigError: with a line for every field that is wrong.
    """
    if "run_dir" not in data:
        data = {**data, "run_dir": f"runs/{data.get('name', 'dataset')}"}
    lines: list[str] = []
    if isinstance(section := data.get("pretrain"), dict):
        section, lines = _checked_training(section)
        data = {**data, "pretrain": section}
    try:
        config = RunConfig.model_validate(data)
    except ValidationError as error:
        lines = fault_lines(error, RunConfig, data) + lines
    else:
        lines += secret_lines(config.model_dump(mode="json"))
    if lines:
        raise ConfigError(f"{where} is not a valid config: " + "; ".join(lines))
    for name, pool in config.pools.items():
        for number, source in enumerate(pool.sources):
            _check_scheme(source.path, field=f"pools.{name}.sources.{number}.path", where=where)
    _check_scheme(config.root, field="root", where=where)
    if not storage.is_local(config.run_dir):
        raise ConfigError(
            f"{where}: run_dir must be a folder of the file system",
            got=storage.redact(config.run_dir),
            expected="a path that all workers share",
        )
    return config


def _checked_training(section: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The section `pretrain` with every default spelled out, and a line for each field that is wrong."""
    from pretrain.config import PretrainConfig  # seconds, for which a run without it shall not wait

    try:
        return PretrainConfig.model_validate(section).model_dump(mode="json"), []
    except ValidationError as error:
        return section, fault_lines(error, PretrainConfig, section, at="pretrain")


def require_vector_files(config: RunConfig) -> None:
    """See that the files of precomputed vectors are there.

    Raises:
        ConfigError: naming the field, when one is not.
    """
    settings = config.describe
    fields = {"describe.embed.embedder": settings.embed, "describe.descriptor": settings.descriptor_embed}
    for field, embed in fields.items():
        spec = parse_embedder(embed.embedder) if embed else None
        if spec and spec.library == "precomputed" and not storage.exists(spec.weights):
            raise ConfigError(
                f"{field}: there is no file of precomputed vectors",
                got=storage.redact(spec.weights),
                expected="a parquet file with the columns key, embedding and, where keys repeat, pool",
            )


def _check_scheme(path: str, *, field: str, where: str) -> None:
    try:
        storage.check_scheme(path)
    except ConfigError as error:
        raise ConfigError(
            f"{where}: {field}: {error.what}", got=error.got, expected=error.expected
        ) from error


def resolved_yaml(config: RunConfig) -> str:
    """The config as `run.yaml` has it: every default spelled out, no credentials."""
    return dump_yaml(redacted(config.model_dump(mode="json")))


def config_sha256(config: RunConfig) -> str:
    """The hash that a manifest names its config by: that of the bytes of `run.yaml`."""
    return hashlib.sha256(resolved_yaml(config).encode()).hexdigest()
