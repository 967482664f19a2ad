"""What the identities of clustering hang on: what is found again under one, and what is not."""

from dataclasses import replace

import pytest

from curation.cluster.config import ClusterConfig
from pipelines.engine.step import FileRef, Item, NoSettings, Step
from pipelines.rows.parts import Part
from pipelines.stages.cluster import cluster_tasks, kmeans_tasks, leaves_tasks, level_tasks, seeding_tasks
from pipelines.stages.cluster.training_set import ClusterSettings

BELOW = FileRef("steps/below.npy", 1, "below")
FILES = (FileRef("steps/one.npy", 1, "one"), FileRef("steps/other.npy", 1, "other"))
PARTS = (Part(0, "web", "uncurated", 0, 5, images=BELOW, embeddings=BELOW),)
CUT = range(5)


def identity(task: object, settings: object = None) -> str:
    return Step("a_step", 1, settings or NoSettings(), lambda _: lambda _: {}, "task", "cluster").identity(
        Item(task)
    )


@pytest.mark.parametrize(
    ("task", "made"),
    [
        (
            cluster_tasks.ClusterTask(PARTS, *FILES),
            cluster_tasks.MadeInSteps(
                BELOW, kmeans_tasks.Fitted(BELOW, [1.0]), FILES, FILES, num_trained_on=5
            ),
        ),
        (level_tasks.LevelTask(BELOW), level_tasks.MadeLevel(*FILES)),
    ],
)
def test_done_in_steps_it_has_the_identity_of_done_at_once(task: object, made: object) -> None:
    assert identity(replace(task, made=made)) == identity(task)


@pytest.mark.parametrize(
    ("task", "made_from"),
    [
        (kmeans_tasks.StateTask("clustering", 1), {"made_from": kmeans_tasks.Summed(BELOW, (), ())}),
        (kmeans_tasks.StateTask("clustering", 0), {"made_from": kmeans_tasks.Sampled(PARTS, BELOW)}),
        (kmeans_tasks.SumsTask("clustering", 1, PARTS, BELOW), {"centroids": BELOW}),
        (
            seeding_tasks.DrawTask("clustering", 1),
            {"made_from": seeding_tasks.SeedCandidates(FILES, (3, 2), FILES, 1)},
        ),
        (
            seeding_tasks.DistancesTask("clustering", 1, CUT),
            {"made_from": seeding_tasks.Nearer(BELOW, None, FILES)},
        ),
        (level_tasks.LevelLabelsTask("clustering", PARTS), {"centroids": BELOW}),
        (level_tasks.LevelStateTask("level", 1), {"made_from": level_tasks.Labelled(BELOW, (), (5,))}),
    ],
)
def test_an_inner_step_is_found_without_what_it_was_made_from(task: object, made_from: dict) -> None:
    assert identity(replace(task, **made_from)) == identity(task)


def test_how_work_is_cut_and_where_it_is_done_is_no_part_of_an_identity() -> None:
    task = cluster_tasks.ClusterTask(PARTS, *FILES)

    def of(**changed: object) -> str:
        return identity(task, ClusterSettings(ClusterConfig.model_validate(changed), 0))

    assert of(group_rows=7, device="cuda") == of()
    assert of(tolerance=0.5) != of()
    assert of(num_clusters=3) != of()


@pytest.mark.parametrize(
    ("task", "changed"),
    [
        (kmeans_tasks.StateTask("clustering", 1), {"clustering": "another"}),
        (kmeans_tasks.StateTask("clustering", 1), {"number": 2}),
        (kmeans_tasks.SumsTask("clustering", 1, PARTS, BELOW), {"number": 2}),
        (kmeans_tasks.SumsTask("clustering", 1, PARTS, BELOW), {"parts": (replace(PARTS[0], number=1),)}),
        (seeding_tasks.DistancesTask("clustering", 1, CUT), {"cut": range(5, 9)}),
        (level_tasks.LevelStateTask("level", 1), {"level": "another"}),
        # A pool behind the last that was clustered makes the arrays of leaves longer, and nothing else.
        (leaves_tasks.LeavesTask(BELOW, (), num_rows=5, dim=2), {"num_rows": 6}),
    ],
)
def test_what_is_another_item(task: object, changed: dict) -> None:
    assert identity(replace(task, **changed)) != identity(task)
