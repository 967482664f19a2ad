"""Whose fault an import is that fails: a package of others is missing, or ours is broken."""

OURS = ("curation", "pipelines", "pretrain")


def is_of_ours(error: ImportError) -> bool:
    """Whether it is a module or a name of ours that could not be imported: pip install mends nothing."""
    return (error.name or "").split(".")[0] in OURS
