"""Whether FAISS is there, asked before any work is done."""

from curation.errors import ConfigError


def require_faiss() -> None:
    """See that FAISS can be imported.

    Raises:
        ConfigError: it cannot.
    """
    try:
        import faiss  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "Copies and neighbours are searched with FAISS, which is not installed",
            got=error,
            remedy="On every machine: pip install faiss-cpu, or faiss-gpu where indexes are on a GPU",
        ) from error
