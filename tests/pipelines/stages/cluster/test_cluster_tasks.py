"""What the identities of clustering hang on: what is found again under one, and what is not."""

from dataclasses import replace

import pytest

from curation.cluster.config import ClusterConfig
from pipelines.engine.step import FileRef, Item, NoSettings, Step
from pipelines.rows.parts import Part
from pipelines.stages.cluster import cluster, kmeans, labels, level, seeding, split_leaves
from pipelines.stages.cluster.training_set import ClusterSettings

BELOW = FileRef("steps/below.npy", 1, "below")
FILES = (FileRef("steps/one.npy", 1, "one"), FileRef("steps/other.npy", 1, "other"))
PARTS = (Part(0, "web", "uncurated", 0, 5, images=BELOW, embeddings=BELOW),)
CUT = range(5)


def identity(task: object, settings: object = None) -> str:
    return Step("a_step", 1, settings or NoSettings(), lambda _: lambda _: {}, "cluster").identity(Item(task))


@pytest.mark.parametrize(
    ("task", "made"),
    [
        (
            cluster.ClusterTask(PARTS, *FILES),
            cluster.MadeInSteps(
                BELOW, kmeans.Fitted(BELOW, [1.0]), (labels.GroupLabels(*FILES),), num_trained_on=5
            ),
        ),
        (level.LevelTask(BELOW), level.MadeLevel(*FILES)),
    ],
)
def test_done_in_steps_it_has_the_identity_of_done_at_once(task: object, made: object) -> None:
    assert identity(replace(task, made=made)) == identity(task)


@pytest.mark.parametrize(
    ("task", "made_from"),
    [
        (kmeans.StateTask(), {"made_from": kmeans.Summed(BELOW, (), ())}),
        (kmeans.StateTask(), {"made_from": kmeans.Sampled(PARTS, BELOW)}),
        (seeding.DrawTask(), {"made_from": seeding.SeedCandidates(FILES, (3, 2), FILES, 1)}),
        (seeding.DistancesTask(CUT), {"made_from": seeding.Nearer(BELOW, None, FILES)}),
        (level.LevelStateTask(), {"made_from": level.Labelled(BELOW, (), (5,))}),
    ],
)
def test_an_inner_step_is_found_without_what_it_was_made_from(task: object, made_from: dict) -> None:
    assert identity(replace(task, **made_from)) == identity(task)


def test_how_work_is_cut_and_where_it_is_done_is_no_part_of_an_identity() -> None:
    task = cluster.ClusterTask(PARTS, *FILES)

    def of(**changed: object) -> str:
        return identity(task, ClusterSettings(ClusterConfig.model_validate(changed), 0))

    assert of(group_rows=7, device="cuda") == of()
    assert of(tolerance=0.5) != of()
    assert of(num_clusters=3) != of()


@pytest.mark.parametrize(
    ("task", "changed"),
    [
        (kmeans.SumsTask(PARTS, *FILES), {"centroids": BELOW}),
        (kmeans.SumsTask(PARTS, *FILES), {"parts": (replace(PARTS[0], number=1),)}),
        (seeding.SampleTask(PARTS, BELOW, CUT), {"cut": range(5, 9)}),
        (seeding.DistancesTask(CUT), {"cut": range(5, 9)}),
        (labels.LabelsTask(PARTS, None, BELOW), {"alive": BELOW}),
        # A pool behind the last that was clustered makes the arrays of leaves longer, and nothing else.
        (split_leaves.LeavesTask(BELOW, (), num_rows=5, dim=2), {"num_rows": 6}),
    ],
)
def test_what_is_another_item(task: object, changed: dict) -> None:
    assert identity(replace(task, **changed)) != identity(task)
