"""Packages that not every machine has: what is said where one is missing, or is there and broken."""

from collections.abc import Iterator
from contextlib import contextmanager

from curation.errors import ConfigError

OURS = ("curation", "pipelines", "pretrain")

# Distributions that have another name than what is imported.
_DISTRIBUTIONS = {
    "PIL": "pillow",
    "cv2": "opencv-python-headless",
    "faiss": "faiss-cpu",
    "fastwarc": "FastWARC",
    "open_clip": "open_clip_torch",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "yaml": "PyYAML",
}


def distribution_of(error: ModuleNotFoundError) -> str:
    """What pip installs for a module that is missing."""
    module = (error.name or "").partition(".")[0]
    return _DISTRIBUTIONS.get(module, module)


def is_of_ours(error: ImportError) -> bool:
    """Whether it is a module or a name of ours that could not be imported: pip install mends nothing."""
    return (error.name or "").split(".")[0] in OURS


@contextmanager
def needing(what: str, *, install: str) -> Iterator[None]:
    """Say what to do where the imports within fail.

    A mistake in lvd's own modules is none of a package, and is let through.

    Args:
        what: who needs which package: "describe.faces needs OpenCV".

    Raises:
        ConfigError: when it, or what it needs itself, is not installed or cannot be imported.
    """
    try:
        yield
    except ImportError as error:
        # fsspec tells an import that failed, for whatever reason, in words of its own.
        first = error.__cause__ if isinstance(error.__cause__, ImportError) else error
        if is_of_ours(first):
            raise
        if isinstance(first, ModuleNotFoundError):
            raise ConfigError(f"{what}, which is not installed", got=first, remedy=install) from error
        raise ConfigError(
            f"{what}, which cannot be imported",
            got=first,
            remedy=f"Mend what the error names, or install the package anew. {install}",
        ) from error
