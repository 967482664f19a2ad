"""The stages of the flow, in order."""

# Every step belongs to one of these, and steps come in this order.
FLOW = ("ingest", "describe", "judge", "dedup", "decontaminate", "cluster", "retrieve", "select", "shard")
