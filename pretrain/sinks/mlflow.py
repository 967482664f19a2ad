"""MLflow: a run of an experiment, on a server or in a database."""

import time
from collections.abc import Mapping

from pretrain.sinks.config import MlflowConfig
from pretrain.sinks.sink import Told, leaves

TAG = "lvd.run"  # by which a resumed training finds its run
MAX_PARAMS = 100  # in one request
MAX_PARAM_CHARS = 500


class MlflowSink:
    """Writes metrics by step, and the config as parameters, through a client that changes no global state."""

    def __init__(self, config: MlflowConfig, told: Told) -> None:
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param

        self._metric = Metric
        self._client = MlflowClient(tracking_uri=config.tracking_uri)
        found = self._client.get_experiment_by_name(config.experiment)
        experiment = found.experiment_id if found else self._client.create_experiment(config.experiment)
        runs = self._client.search_runs([experiment], f"tags.`{TAG}` = '{told.run}'", max_results=1)
        if runs:
            self._run = runs[0].info.run_id
            self._client.update_run(self._run, status="RUNNING")
            return
        made = self._client.create_run(experiment, run_name=told.name, tags={TAG: told.run})
        self._run = made.info.run_id
        texts = {name: str(value)[:MAX_PARAM_CHARS] for name, value in leaves(told.settings).items()}
        params = [Param(name, text) for name, text in texts.items()]
        for start in range(0, len(params), MAX_PARAMS):
            self._client.log_batch(self._run, params=params[start : start + MAX_PARAMS])

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """See `Sink`."""
        now_ms = int(time.time() * 1000)
        metrics = [self._metric(name, value, now_ms, step) for name, value in values.items()]
        self._client.log_batch(self._run, metrics=metrics)

    def close(self, *, is_done: bool) -> None:
        """See `Sink`."""
        self._client.set_terminated(self._run, status="FINISHED" if is_done else "KILLED")
