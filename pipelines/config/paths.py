"""Makes the paths of a config absolute: a worker of a cluster has a working directory of its own."""

from dataclasses import replace
from pathlib import Path

from curation import storage
from curation.describe.embed import parse_embedder, sscd_spec
from curation.describe.faces import FacesConfig
from curation.describe.heads_config import HeadsConfig
from curation.ingest.sources import Source, UrlSource, WarcSource
from pipelines.config.run_config import RunConfig
from pipelines.models.own_weights import weights_file


def absolute(config: RunConfig) -> RunConfig:
    """The same config with `root` worked into the sources, and every local path absolute."""
    pools = {
        name: pool.model_copy(update={"sources": tuple(_source(s, config.root) for s in pool.sources)})
        for name, pool in config.pools.items()
    }
    describe = config.describe
    embed = describe.embed.model_copy(update={"embedder": _embedder(describe.embed.embedder)})
    changes = {
        "embed": embed,
        "descriptor": describe.descriptor and _embedder(describe.descriptor),
        "heads": _heads(describe.heads),
        "faces": describe.faces and _faces(describe.faces),
    }
    return config.model_copy(
        update={
            "run_dir": _path(config.run_dir),
            "root": "",
            "pools": pools,
            "describe": describe.model_copy(update=changes),
        }
    )


def _source(source: Source, root: str) -> Source:
    path = source.path
    if root and storage.is_local(path) and not storage.local_path(path).is_absolute():
        path = storage.join(root, path)
    changes: dict[str, object] = {"path": _path(path)}
    if isinstance(source, UrlSource | WarcSource):
        lists = tuple(_path(file) for file in source.download.blocked_domains)
        changes["download"] = source.download.model_copy(update={"blocked_domains": lists})
    return source.model_copy(update=changes)


def _embedder(spec: str) -> str:
    parsed = parse_embedder(spec)
    weights = parsed.weights
    if parsed.library == "vit":
        return f"vit:{weights_file(weights)}"
    if parsed.library == "sscd":
        whitening = parsed.whitening and _path(parsed.whitening)
        return sscd_spec(replace(parsed, weights=_path(weights), whitening=whitening))
    if weights and storage.is_local(weights) and storage.exists(weights):  # and not a tag of a hub
        return spec.removesuffix(weights) + _path(weights)
    return spec


def _heads(heads: HeadsConfig) -> HeadsConfig:
    changes: dict[str, object] = {"embedder": heads.embedder and _embedder(heads.embedder)}
    for name, head in heads.on.items():
        if head.kind == "weights":
            changes[name] = head.model_copy(update={"weights": _pinned(head.path, head.sha256)})
    return heads.model_copy(update=changes)


def _faces(faces: FacesConfig) -> FacesConfig:
    return faces.model_copy(update={"model": faces.path and _pinned(faces.path, faces.sha256)})


def _pinned(path: str, sha256: str) -> str:
    return f"{_path(path)}@{sha256}" if sha256 else _path(path)


def _path(path: str) -> str:
    # Not resolved: a link's name is the name that its owner gave it.
    return str(Path.cwd() / storage.local_path(path)) if storage.is_local(path) else path
