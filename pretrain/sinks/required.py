"""What sinks need to be there before a training starts: their packages, and a key where one is asked for."""

import importlib.util
from collections.abc import Sequence

from curation.errors import ConfigError
from curation.packages import needing
from pretrain.sinks.config import MlflowConfig, SinkConfig, WandbConfig

DATABASES = ("sqlite", "postgresql", "mysql", "mssql")


def require_sinks(sinks: Sequence[SinkConfig]) -> None:
    """See that every sink can be opened, as far as this machine alone can tell.

    Raises:
        ConfigError: naming the extra that is not installed, or the key that is missing.
    """
    for sink in sinks:
        with needing(f"The sink {sink.kind} needs a package", install=f"pip install 'lvd[{sink.kind}]'"):
            match sink.kind:
                case "tensorboard":
                    import tensorboard  # noqa: F401
                case "mlflow":
                    import mlflow  # noqa: F401
                case "wandb":
                    import wandb  # noqa: F401
                case "trackio":
                    import trackio  # noqa: F401
        if isinstance(sink, MlflowConfig):
            _require_database(sink)
        if isinstance(sink, WandbConfig) and sink.mode == "online":
            _require_key()


def _require_database(sink: MlflowConfig) -> None:
    scheme = (sink.tracking_uri or "").partition(":")[0].partition("+")[0]
    if scheme in DATABASES and importlib.util.find_spec("sqlalchemy") is None:
        raise ConfigError(
            "MLflow needs SQLAlchemy to write into a database",
            got=f"tracking_uri: {scheme}:…",
            expected="a server, such as http://localhost:5000, or the whole of MLflow",
            remedy="pip install mlflow",
        )


def _require_key() -> None:
    import wandb

    # It would ask for one later, in the midst of the training.
    if not wandb.login(prompt=False, verify=False):
        raise ConfigError(
            "Weights & Biases has no key of yours",
            got="no WANDB_API_KEY, and none from `wandb login`",
            remedy="Log in: wandb login; or set mode: offline, and send the run later with wandb sync",
        )
