"""What fsspec's drivers of object stores raise, in the errors that callers know.

A driver has errors of its own, and few of them are an `OSError`: to everybody else a request that failed is
a file that cannot be read, and credentials that are missing are a mistake of the user.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from curation.disk_errors import lack
from curation.errors import ConfigError, LvdError, SourceError
from curation.outages import Outages, store_of
from curation.packages import needing

OUTAGES = Outages()  # of this process

# How the driver of a scheme is installed.
INSTALL = {
    "s3": "pip install 'lvd[s3]'",
    "s3a": "pip install 'lvd[s3]'",
    "gs": "pip install gcsfs",
    "gcs": "pip install gcsfs",
    "az": "pip install adlfs",
    "abfs": "pip install adlfs",
}
# How often s3fs repeats a request that botocore has given up after 5 tries, and then the read of
# which it is a part: with its own 5 by 5 times, a read from a store that closes every connection took 225 s.
_S3_TRIES = 2
# The packages whose errors these are, told by where an error's class is defined.
_PACKAGES = frozenset(
    ("botocore", "aiobotocore", "s3fs", "aiohttp", "urllib3", "gcsfs", "google", "adlfs", "azure")
)
_CREDENTIALS = frozenset(
    (
        "NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "TokenRetrievalError",
        "UnauthorizedSSOTokenError", "SSOTokenLoadError", "ProfileNotFound", "InvalidConfigError",
        "DefaultCredentialsError", "RefreshError", "ClientAuthenticationError",
    )
)  # fmt: skip


@contextmanager
def translated(path: str) -> Iterator[None]:
    """Turn a driver's errors within into an `OSError`, or a SourceError where credentials are at fault.

    Where it is this process that lacks something, that is an ExecutorError (`disk_errors.lack`).

    A store whose last requests all failed is not asked for a while: then a `RestingError` is raised at once.

    Args:
        path: what is read, without credentials.
    """
    store = store_of(path)
    OUTAGES.require(store)
    started_s = time.monotonic()
    try:
        yield
    except (FileNotFoundError, FileExistsError, PermissionError):
        OUTAGES.answered(store)
        raise
    except (OSError, LvdError) as error:
        if not isinstance(error, LvdError) and (lacking := lack(error, path)) is not None:
            raise lacking from error
        if _is_of_driver(error):  # what is read may be damaged, which is no fault of the store
            OUTAGES.failed(store, lost_s=time.monotonic() - started_s)
        raise
    except Exception as error:
        if not _is_of_driver(error):
            raise
        if (lacking := lack(error, path)) is not None:
            raise lacking from error
        if type(error).__name__ in _CREDENTIALS:
            raise SourceError(
                f"No credentials for {path}",
                got=error,
                expected="credentials where the store's own tools look for them, on every worker",
                remedy="For S3: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run `aws configure`",
            ) from error
        OUTAGES.failed(store, lost_s=time.monotonic() - started_s)
        raise OSError(f"{path}: {type(error).__name__}: {error}") from error
    OUTAGES.answered(store)


def _is_of_driver(error: BaseException) -> bool:
    # s3fs tells some of botocore's errors as a ValueError, raised from them.
    return any(type(one).__module__.partition(".")[0] in _PACKAGES for one in (error, error.__cause__) if one)


def limit_retries(fs: Any, scheme: str) -> None:
    """Have a driver repeat what fails for half a minute at most; the caller of it tries again, or rests."""
    if scheme in ("s3", "s3a"):
        fs.retries = _S3_TRIES


@contextmanager
def opening(scheme: str, path: str) -> Iterator[None]:
    """Say what is missing where the driver of `scheme` cannot be set up within.

    Args:
        path: what is to be read, without credentials.

    Raises:
        ConfigError: when the driver is not installed, or lacks a setting.
    """
    install = f"On every machine: {INSTALL.get(scheme, 'install the driver that fsspec names')}"
    try:
        with needing(f"{path} is read by a driver of {scheme}://", install=install):
            yield
    except ValueError as error:
        raise ConfigError(f"{scheme}:// cannot be used as it is set up: {path}", got=error) from error
