"""From the config to the images of a training: a dataset of lvd's, anybody's tars, a stream, or a mixture."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from curation import storage
from curation.errors import ConfigError
from pretrain.data.config import DataConfig
from pretrain.data.image_set import ImageSet
from pretrain.data.images import Images, require_spooled
from pretrain.data.mix import MixedImages
from pretrain.data.order import MIX_BLOCK
from pretrain.data.spool import Spool
from pretrain.data.stream import StreamedImages
from pretrain.data.tar_images import TarImages
from pretrain.data.tar_listing import is_plain, list_tars, names_tars


def open_images(
    config: DataConfig,
    *,
    cache: Path,
    spool: Spool,
    batch_images: int | None = None,
    say: Callable[[str], object] = lambda _line: None,
) -> ImageSet:
    """Open what a training is trained on.

    Args:
        config: with `path` or `mix` set.
        cache: a local folder for what is learned of the datasets once.
        spool: for shards of an object store.
        batch_images: images in a step; None: it is not asked whether there are enough.
        say: is told what a user should know before it starts, a line a call.

    Raises:
        SourceError: when there is nothing to read.
        ConfigError: for a command that is not allowed, a mixture of streams, a spool that is too small, or
            fewer images than a batch takes.
        IntegrityError: when a dataset is not what its manifest says.
    """
    if config.mix is None:
        assert config.path is not None
        images = _open_one(config.path, config, cache=cache, spool=spool, say=say)
    else:
        parts = [_open_one(part.path, config, cache=cache, spool=spool, say=say) for part in config.mix]
        images = MixedImages(
            parts,
            names=[config.name_of(part) for part in config.mix],
            weights=[part.weight for part in config.mix],
        )
    require_spooled(images.spooled_bytes(config.window_images), spool, window_images=config.window_images)
    if not images.is_exact:
        say(images.describe())
    if batch_images is not None:
        _require_enough(images, batch_images, allow_repeats=config.allow_repeats, say=say)
    return images


def _open_one(
    path: str, config: DataConfig, *, cache: Path, spool: Spool, say: Callable[[str], object]
) -> ImageSet:
    if not names_tars(path):
        _require_no_loose_tars(path)
        return Images(path, cache=cache, spool=spool)
    tars = list_tars(path, allow_pipe=config.allow_pipe)
    if all(is_plain(tar) for tar in tars):
        return TarImages(
            path, tars, extensions=config.extensions, cache=cache, threads=config.read_threads, say=say
        )
    return StreamedImages(path, tars, extensions=config.extensions, buffer_images=config.buffer_images)


def _require_no_loose_tars(path: str) -> None:
    """Tell how the tars of a folder are named, where it is no run directory."""
    if not storage.is_local(path):
        return
    folder = storage.local_path(path)
    if folder.is_dir() and not (folder / "manifest.json").exists() and any(folder.glob("*.tar")):
        raise ConfigError(
            f"{path} has tars in it, and no manifest.json of lvd's",
            expected="the directory of a finished run, or a pattern of tars",
            remedy=f"If you want all of them: --set 'data.path={os.path.join(path, '*.tar')}'",  # noqa: PTH118
        )


def _require_enough(
    images: ImageSet, batch_images: int, *, allow_repeats: bool, say: Callable[[str], object]
) -> None:
    """See that no batch has an image several times, where the order of an epoch can help it."""
    for name, num_images, needed in _parts(images, batch_images):
        if num_images >= needed:
            continue
        words = f"{name} has fewer images than a batch takes of it, so that a batch has some several times"
        if not allow_repeats:
            raise ConfigError(
                words,
                got=f"{num_images:,} images for {needed:,} in a batch",
                expected=f"{needed:,} at least",
                remedy="Lower batch_images, or the weight of this dataset in data.mix; where repeats are "
                "meant, set data.allow_repeats: true",
            )
        say(f"{words}: {num_images:,} for {needed:,}; KoLeo pushes an image from itself")


def _parts(images: ImageSet, batch_images: int) -> Iterator[tuple[str, int, int]]:
    """Each dataset's name, how many images it has, and how many a batch takes of it on average."""
    if isinstance(images, MixedImages):
        for name, part, share in zip(images.names, images.parts, images.shares, strict=True):
            yield name, len(part), -(-batch_images * share // MIX_BLOCK)
    elif images.num_images is not None:
        yield images.name, images.num_images, batch_images
