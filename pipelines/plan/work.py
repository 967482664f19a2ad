"""Every step that a config will run, in the order of the flow, and what each stage says that it has to do."""

from pipelines.stages.cluster.forecast import forecast_cluster
from pipelines.stages.copies.forecast import forecast_decontaminate, forecast_dedup, forecast_pca_hashes
from pipelines.stages.describe.forecast import forecast_describe
from pipelines.stages.forecast import Sizes, StepForecast
from pipelines.stages.ingest.forecast import forecast_ingest
from pipelines.stages.retrieve.forecast import forecast_retrieve, forecast_select
from pipelines.stages.shard.forecast import forecast_shard


def forecast(sizes: Sizes) -> list[StepForecast]:
    """The work of every step of a run."""
    return [
        *forecast_ingest(sizes),
        *forecast_describe(sizes),
        *forecast_pca_hashes(sizes),
        *forecast_dedup(sizes),
        *forecast_decontaminate(sizes),
        *forecast_cluster(sizes),
        *forecast_retrieve(sizes),
        forecast_select(sizes),
        *forecast_shard(sizes),
    ]
