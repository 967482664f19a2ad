# %% [markdown]
# # lvd from a notebook
#
# A script in cells (jupytext's percent format): `python docs/notebook.py` runs it in some ten seconds, and
# editors and Jupyter open it as a notebook. It draws a small web below `runs/notebook`, curates it, asks
# what became of its images, and takes the run's vectors as arrays. What a sentence says of the outcome, the
# next cell asserts.

# %%
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

import curation
import pipelines
from pipelines.demo.web import demo_config, draw_web

HERE = Path("runs/notebook")

# %% [markdown]
# ## Run
#
# A config is what the YAML file of `lvd run` holds: `pipelines.load_config("first.yaml")` reads one, and
# `validate` takes a dictionary. `curate` runs it, and goes on where an earlier run of the same folder was.

# %%
draw_web(HERE / "web", seed=1, num_images=240)
settings = demo_config(HERE / "web", HERE / "run") | {"executor": {"kind": "local", "threads": 1}}
config = pipelines.validate(settings, where="this notebook")
result = pipelines.curate(config)
assert result.exit_code == 0

# %% [markdown]
# ## Ask
#
# The lineage is an Arrow table with a row for every image that came in.

# %%
run = pipelines.open_run(config.run_dir)
lineage = run.lineage()
verdicts = lineage.group_by(["pool", "decision", "reason"]).aggregate([([], "count_all")])
for verdict in verdicts.sort_by([("pool", "ascending"), ("count_all", "descending")]).to_pylist():
    print("{pool:<12}{decision:<9}{reason:<22}{count_all:>4}".format(**verdict))

# %% [markdown]
# Why is one of them not in the dataset? `explain` gives data, `explain_in_words` what `lvd explain` prints.

# %%
near_copies = lineage.filter(pc.equal(lineage["reason"], "near_copy"))
name = f"{near_copies['pool'][0]}/{near_copies['key'][0]}"
[story] = run.explain(name)
print(run.explain_in_words(name))
assert story["story"]["dedup"]["reason"] == "near_copy"

# %% [markdown]
# What looks like it? The first hit is the image that it is a copy of.

# %%
hits = run.search(name, k=3)
for hit in hits.to_pylist():
    print(f"{hit['score_with_query']:.4f}  {hit['pool'] + '/' + hit['key']:<34}{hit['reason']}")
assert hits["key"][0].as_py() == near_copies["by_key"][0].as_py()

# %% [markdown]
# The shards give any sample by its number.

# %%
with run.shards() as shards:
    sample = shards.read(0, 0)
    print(len(shards), sample.ext, sample.meta["pool"], sample.meta["key"], f"{len(sample.data):,} bytes")
assert len(shards) == result.manifest["counts"]["dataset"]

# %% [markdown]
# ## Vectors
#
# Row i of `vectors()` belongs to row i of the lineage. They are of unit length, or zeros where an image
# could not be read, as all functions below want
# them; `curation.unit_vectors` makes such of your own. First copies, by the copy descriptor alone:

# %%
descriptors = run.vectors(by="descriptors")
copies = curation.copies_among(descriptors, threshold=config.dedup.cosine_threshold)
print(f"{len(copies.survivors)} of {len(descriptors)} stay, {len(copies.edges.a)} pairs")
row = pc.index(lineage["key"], near_copies["key"][0]).as_py()
assert copies.representative[row] == hits["row"][0].as_py()

# %% [markdown]
# k-means. On the images that the run has clustered it gives the run's own clusters, to the bit.

# %%
embeddings = run.vectors()
is_clustered = pc.and_(pc.equal(lineage["pool"], "web"), pc.is_valid(lineage["cluster"]))
web = np.flatnonzero(is_clustered.to_numpy())
clusters = curation.kmeans(embeddings[web], num_clusters=config.cluster.num_clusters, seed=config.seed)
assert (clusters.cluster == lineage["cluster"].take(web).to_numpy()).all()

# %% [markdown]
# Clusters of clusters, and a sample that is balanced over them: the largest cluster of the first level
# gives far less than its share.

# %%
tree = curation.hierarchy(embeddings[web], [8, 3], num_clusters=24, seed=config.seed)
chosen = curation.balanced_sample(tree, 40)
size, given = np.bincount(tree.at_level(1)), np.bincount(tree.at_level(1)[chosen], minlength=8)
print(size, given)
assert given.max() / 40 < 0.5 * size.max() / len(web)

# %% [markdown]
# Nearest neighbours of many at once: of each trusted image those of the pool. They are what retrieval by
# sample has brought in, where its row of the lineage says so.

# %%
is_seed = pc.and_(pc.equal(lineage["pool"], "trusted"), pc.equal(lineage["decision"], "kept"))
seeds = np.flatnonzero(is_seed.to_numpy())
nearest = curation.nearest_neighbours(embeddings[seeds], embeddings[web], k=6)
retrieved = np.flatnonzero(pc.equal(lineage["reason"], "retrieved_by_sample").to_numpy())
print(nearest.index.shape, f"{nearest.score[:, 0].mean():.3f}")
assert set(retrieved) == set(web[nearest.index].ravel())
