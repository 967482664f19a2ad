"""Files of weights as a config names them, and what is vouched for of their bytes: `FILE[@SHA256]`."""

import zipfile
from pathlib import Path

from curation import storage
from curation.errors import ModelError
from pretrain.weight_files import PICKLED

# What tells an archive of TorchScript from one of tensors, to torch.load as well.
TORCHSCRIPT_MEMBER = "constants.pkl"
SUFFIXES = (".safetensors", *PICKLED)


def digest_of_pinned(path: str, sha256: str, *, suffixes: tuple[str, ...] = SUFFIXES) -> str:
    """SHA-256 of a file of weights.

    Args:
        path: the file.
        sha256: that it must have; empty where none is named.
        suffixes: that its name may end in.

    Raises:
        ModelError: it is not there, of another kind, or not the one that was named.
    """
    _check_file(path, suffixes)
    digest, _ = storage.sha256_file(path)
    check_digest(path, digest, sha256)
    return digest


def vouched_digest(path: str, sha256: str) -> str:
    """`digest_of_pinned` of a file that may be a program: of such a one the SHA-256 must be named."""
    digest = digest_of_pinned(path, sha256)
    if not sha256 and is_torchscript(path):
        raise ModelError(
            f"{path} is a TorchScript archive, which is a program",
            got="no SHA-256 beside it",
            expected=f"{path}@SHA256, with the one that its publisher or you vouch for",
            remedy=f"This file has {digest}; or give the file of tensors of the same model",
        )
    return digest


def is_torchscript(path: str) -> bool:
    """Whether a file is an archive of TorchScript, whatever its name."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.rpartition("/")[2] == TORCHSCRIPT_MEMBER for name in archive.namelist())


def _check_file(path: str, suffixes: tuple[str, ...]) -> None:
    if not Path(path).is_file():
        raise ModelError("No weights", got=path, expected="a local file", remedy="Check the path")
    if Path(path).suffix not in suffixes:
        raise ModelError(
            f"{path} is no kind of weights file that is read here",
            got=Path(path).suffix or "no suffix",
            expected=" or ".join(suffixes),
            remedy="Save the weights as one of these",
        )


def check_digest(path: str, digest: str, sha256: str) -> None:
    """See that a file\'s SHA-256 is the one that was named, if any.

    Raises:
        ModelError: it is another.
    """
    if sha256 and digest != sha256:
        raise ModelError(
            f"{path} is not the file that the config names",
            got=f"SHA-256 {digest}",
            expected=sha256,
            remedy="Fetch the file again, or name this one if you trust it",
        )
