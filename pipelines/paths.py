"""Makes the paths of a config absolute: a worker of a cluster has a working directory of its own."""

from dataclasses import replace
from pathlib import Path

from curation import storage
from curation.describe.embed import parse_embedder, sscd_spec
from curation.ingest.sources import Source, WarcSource
from curation.ingest.web.url_source import UrlSource
from pipelines.config import RunConfig


def absolute(config: RunConfig) -> RunConfig:
    """The same config with `root` worked into the sources, and every local path absolute."""
    pools = {
        name: pool.model_copy(update={"sources": tuple(_source(s, config.root) for s in pool.sources)})
        for name, pool in config.pools.items()
    }
    describe = config.describe
    embed = describe.embed.model_copy(update={"embedder": _embedder(describe.embed.embedder)})
    descriptor = describe.descriptor and _embedder(describe.descriptor)
    return config.model_copy(
        update={
            "run_dir": _path(config.run_dir),
            "root": "",
            "pools": pools,
            "describe": describe.model_copy(update={"embed": embed, "descriptor": descriptor}),
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
        from pipelines.own_vit import weights_file  # the trainer takes seconds to import

        return f"vit:{weights_file(weights)}"
    if parsed.library == "sscd":
        whitening = parsed.whitening and _path(parsed.whitening)
        return sscd_spec(replace(parsed, weights=_path(weights), whitening=whitening))
    if weights and storage.is_local(weights) and storage.exists(weights):  # and not a tag of a hub
        return spec.removesuffix(weights) + _path(weights)
    return spec


def _path(path: str) -> str:
    # Not resolved: a link's name is the name that its owner gave it.
    return str(Path.cwd() / storage.local_path(path)) if storage.is_local(path) else path
