"""Geometry of the small charts."""

import numpy as np

from pipelines.report.charts import Bar, draw_bars, draw_graph, rank_bars


def test_bars_by_hand() -> None:
    chart = draw_bars([Bar("a", 10, 5), Bar("b", 0), Bar("c", 1)], width=30)
    assert [bar.height for bar in chart.bars] == [120, 0, 12]
    assert chart.bars[0].dark_height == 60
    assert draw_bars([Bar("a", 10**6), Bar("b", 1)], is_log=True).bars[1].height > 5
    assert draw_bars([]).most == 0


def test_ranked_bars_keep_the_total() -> None:
    sizes = np.sort(np.random.default_rng(0).integers(1, 1000, 997))[::-1]
    numbers = np.arange(len(sizes))[::-1]
    bars = rank_bars(sizes, sizes // 2, numbers, noun="cluster", max_bars=100)
    assert len(bars) == 100
    assert bars[0].hint.startswith("clusters 1–10 by size, mean: ")
    few = rank_bars(sizes[:5], sizes[:5], numbers[:5], noun="cluster")
    assert [bar.num for bar in few] == sizes[:5].tolist()
    assert few[1].hint.startswith("cluster 995: ")


def test_graph_marks_its_weakest_link() -> None:
    graph = draw_graph(4, [(0, 1, 0.99), (1, 2, 0.9), (2, 3, 0.95)])
    assert [link.is_weakest for link in graph.links] == [False, True, False]
    assert graph.nodes[0][0] == graph.side / 2
    assert not draw_graph(2, [(0, 1, 0.9)]).links[0].is_weakest
