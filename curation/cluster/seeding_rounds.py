"""How many seeds k-means++ draws at a time. Apart from the draws, which take seconds to import."""

_BATCH_SHARE = 32  # of k a batch is this part, within bounds: large batches are products, and few rounds
_MIN_BATCH, _MAX_BATCH = 256, 8192  # the largest compares its own candidates in 0.5 GB


def num_rounds(num_clusters: int) -> int:
    """How many rounds k-means++ takes where every candidate is accepted; it takes a few more."""
    rounds = num_chosen = 0
    while num_chosen < num_clusters:
        num_chosen += batch_size(num_chosen, num_clusters)
        rounds += 1
    return rounds


def batch_size(num_chosen: int, num_clusters: int) -> int:
    """Candidates of a round: no more than there are seeds, so that few are too near one another."""
    share = min(max(num_clusters // _BATCH_SHARE, _MIN_BATCH), _MAX_BATCH)
    return min(num_clusters - num_chosen, max(num_chosen, 1), share)
