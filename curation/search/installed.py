"""FAISS, imported where a search begins: whoever asks about a run needs none."""

from typing import Any

from curation.packages import needing


def load_faiss() -> Any:
    """The module `faiss`.

    Raises:
        ConfigError: it is not installed, or cannot be imported.
    """
    install = "On every machine: pip install 'lvd[cpu]', or 'lvd[gpu]' where indexes are on a GPU"
    with needing("Copies and neighbours are searched with FAISS", install=install):
        import faiss
    return faiss
