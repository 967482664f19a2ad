"""Whether FAISS is there, asked before any work is done."""

from curation.packages import needing


def require_faiss() -> None:
    """See that FAISS can be imported.

    Raises:
        ConfigError: it cannot.
    """
    install = "On every machine: pip install faiss-cpu, or faiss-gpu where indexes are on a GPU"
    with needing("Copies and neighbours are searched with FAISS", install=install):
        import faiss  # noqa: F401
