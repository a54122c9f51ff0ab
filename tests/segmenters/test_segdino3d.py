# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""The trained core in a scene, with a predictor that knows things by their colour, so that no torch is needed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from seg3d_core.build import _build_images, _build_map, features_source
from seg3d_core.config import PerceptionConfig, SegDino3DConfig, build
from seg3d_core.errors import FrameError, MapFileError
from seg3d_core.models.predictions import CloudInput, Predictions
from seg3d_core.perception.base import look
from seg3d_core.query.text import TextQuery
from seg3d_core.runtime.offline import run_offline
from seg3d_core.scene import Scene
from seg3d_core.segmenters.group import SegmenterGroup
from seg3d_core.segmenters.re0 import Re0Segmenter
from seg3d_core.segmenters.segdino3d import SegDino3DSegmenter
from seg3d_core.segmenters.segdino3d.inference import class_ids_and_names
from seg3d_core.storage import copy_scene, read_scene, restore_scene, write_scene
from seg3d_core.types import FeatureMap, Masks2D, ObjectQueries2D, Objects2D

# The colours of the fixture's boxes, and the class that each has here, of ScanNet's 18.
COLOURS = np.array([(200, 60, 50), (60, 170, 80), (70, 90, 210)])
CLASSES = np.array([2, 4, 11])
NAMES = ("chair", "table", "curtain")
SETTINGS = {"map.voxel_size": 0.05, "runtime.segment_every": 3}


class ByColour:
    """A `Predictor` that finds what has a box's colour, and keeps what it was given."""

    classes, class_names = 18, ()
    needs_image_features = needs_objects = regresses_boxes = True
    features_2d: str | None = "toy"

    def __init__(self) -> None:
        self.inputs: list[CloudInput] = []

    def predict(self, scene: CloudInput) -> Predictions:
        self.inputs.append(scene)
        near = np.abs(scene.rgb[:, None].astype(int) - COLOURS).max(axis=2) < 30
        rows = [np.flatnonzero(column) for column in near.T]
        boxes = [[*scene.xyz[r].mean(axis=0), 1, 2, 3] if len(r) else [0] * 6 for r in rows]
        return Predictions(
            CLASSES,
            np.array([0.9, 0.8, 0.7], np.float32),
            np.array(boxes, np.float32),
            np.append(0, np.cumsum([len(r) for r in rows])),
            np.concatenate(rows),
        )


class ToyDetector:
    """The true masks as objects; features say which frame they come from."""

    id, chooses_keyframes = "toy", False

    def __init__(self, channels: int = 256, levels: int = 2):
        self.channels, self.levels, self.runs = channels, levels, 0

    def masks(self, frame):
        return Masks2D.from_labels(frame.instance)

    def detect(self, frame):
        self.runs += 1
        masks = self.masks(frame)
        features = np.full((len(masks), self.channels), 1 + frame.index, np.float32)
        queries = ObjectQueries2D(
            features, np.zeros((len(masks), 4)), np.full(len(masks), 0.5, np.float32), "toy-q", None, masks
        )
        height, width = frame.depth.shape
        level = FeatureMap(np.full((self.channels, height // 8, width // 8), 1 + frame.index, np.float32), 8.0, "toy-f")
        return queries, level if self.levels else None


class Frames(list):
    name, kind = "frames", "list"
    drops: dict = {}
    frame_names: list = []


def scene_of(predictor=None, points=None, **settings) -> Scene:
    config = build({**SETTINGS, **settings})
    segmenter = SegDino3DSegmenter(config.segdino3d, predictor or ByColour(), config.map.depth_max)
    return Scene(config, _build_map(config, points), segmenter, _build_images(config))


def run(scene: Scene, frames, detector=None):
    return run_offline(scene, Frames(frames), detector or ToyDetector())


def test_instances_have_classes_names_scores_boxes_and_views(box_room) -> None:
    predictor, detector = ByColour(), ToyDetector()
    result = run(scene_of(predictor), box_room(), detector)
    snapshot = result.snapshot
    assert not result.statistics.drops and detector.runs == result.statistics.counters["keyframes"] == 8
    assert snapshot.names == NAMES and snapshot.instances.class_ids.tolist() == [5, 7, 16]
    assert snapshot.instances.scores.tolist() == pytest.approx([0.9, 0.8, 0.7])
    # The network's own boxes are shown, not those of the points.
    assert (snapshot.extents == [1, 2, 3]).all()
    for k in range(3):
        members = snapshot.cloud.xyz[np.searchsorted(snapshot.cloud.ids, snapshot.instances.members(k))]
        assert np.allclose(snapshot.centres[k], members.mean(axis=0), atol=1e-4)
    assert all(len(v) > 0 and v[0].shape for v in snapshot.views.values())
    seen = predictor.inputs[-1]
    assert len(seen.xyz) == len(snapshot.cloud) and seen.image_features.shape == (len(seen.xyz), 256)
    assert len(np.unique(seen.superpoints)) > 5
    assert len(seen.queries) == len(seen.query_centres) > 8
    # Each object lies in the room, and features come from frames, or are 0 where none saw the point.
    assert (np.abs(seen.query_centres) < 2.5).all()
    assert set(np.unique(seen.queries)) <= set(range(1, 9))
    assert (seen.image_features.max(axis=1) > 0).mean() > 0.9


def test_text_finds_classes_with_and_without_an_encoder(box_room) -> None:
    snapshot = run(scene_of(), box_room()).snapshot

    class Deaf:
        """An encoder that sees in no picture what any text says."""

        id, dim, approximate = "deaf", 3, False

        def encode_text(self, texts):
            angles = np.array([sum(text.encode()) for text in texts], float)
            return np.stack([np.cos(angles), np.sin(angles), 0 * angles], axis=1)

        def encode_images(self, crops):
            return np.tile([0.0, 0.0, 1.0], (len(crops), 1))

    for encoder in (None, Deaf()):
        query = TextQuery(build({}).query, encoder)
        answer = query.answer("the Tables", snapshot)
        assert answer.matched and [a.label for a in answer.answers] == ["table"]
        assert not query.answer("piano", snapshot).matched
        assert query.labels(snapshot) == NAMES
    assert snapshot.with_names({int(snapshot.instances.ids[0]): "throne"}).names == ("throne", *NAMES[1:])


def test_a_map_larger_than_the_budget_gives_the_same_instances(box_room) -> None:
    one, two = ByColour(), ByColour()
    whole = run(scene_of(one), box_room()).snapshot
    settings = {"segdino3d.tile_points": 1000, "segdino3d.tile_overlap": 0.6}
    tiled = run(scene_of(two, **settings), box_room()).snapshot
    assert len(two.inputs) > len(one.inputs)
    assert max(len(i.xyz) for i in two.inputs) < len(whole.cloud)
    assert tiled.names == whole.names and np.array_equal(tiled.instances.sizes, whole.instances.sizes)
    assert np.array_equal(tiled.labels > 0, whole.labels > 0)


def test_scores_and_overlaps_decide_what_enters_the_map(box_room) -> None:
    class Twice(ByColour):
        def predict(self, scene):
            found = super().predict(scene)
            again = (np.concatenate([found.labels, found.labels + 1]), np.concatenate([found.scores, found.scores / 4]))
            both = np.concatenate([found.boxes, found.boxes])
            indptr = np.concatenate([found.indptr, found.indptr[-1] + found.indptr[1:]])
            return Predictions(*again, both, indptr, np.concatenate([found.points, found.points]))

    frames = box_room(4)
    assert len(run(scene_of(Twice()), frames).snapshot.instances) == 3
    assert len(run(scene_of(Twice(), **{"segdino3d.instance_overlap": 1}), frames).snapshot.instances) == 4
    everything = {"segdino3d.instance_overlap": 1, "segdino3d.instance_score": 0}
    assert len(run(scene_of(Twice(), **everything), frames).snapshot.instances) == 6
    assert len(run(scene_of(Twice(), **{"segdino3d.instance_score": 0.75}), frames).snapshot.instances) == 2


def test_a_map_without_points_is_not_shown_to_the_network() -> None:
    predictor = ByColour()
    snapshot = scene_of(predictor).segment()
    assert len(snapshot.cloud) == len(snapshot.instances) == 0 and not predictor.inputs


def test_without_objects_features_or_keyframes_the_network_still_gets_its_input(box_room) -> None:
    predictor = ByColour()
    scene = scene_of(predictor)
    frames = box_room(3)
    for frame in frames:
        scene.add_frame(frame)
    assert len(scene.segment().instances) == 3
    run(scene_of(predictor), [replace(f, instance=np.zeros_like(f.instance)) for f in frames], ToyDetector(levels=0))
    for seen in (predictor.inputs[0], predictor.inputs[-1]):
        assert seen.queries.shape == (0, 256) and seen.query_centres.shape == (0, 3)
        assert seen.image_features.shape == (len(seen.xyz), 256) and not seen.image_features.any()


def test_one_point_and_few_points_are_scenes_too(tmp_path) -> None:
    for count in (1, 2, 30):
        xyz = np.random.default_rng(0).random((count, 3)).astype(np.float32)
        np.savez(tmp_path / "cloud.npz", xyz=xyz, rgb=np.tile(COLOURS[:1], (count, 1)).astype(np.uint8))
        predictor = ByColour()
        snapshot = scene_of(predictor, tmp_path / "cloud.npz").segment()
        assert snapshot.instances.sizes.tolist() == [count] and snapshot.names == ("chair",)
        assert predictor.inputs[0].superpoints.shape == (count,)


def test_saved_and_loaded_maps_go_on_alike(box_room, tmp_path) -> None:
    frames, detector = box_room(12), ToyDetector()
    one, two = ByColour(), ByColour()
    scene = scene_of(one)
    before = run(scene, frames[:8], detector).snapshot
    write_scene(tmp_path / "a.seg3d", copy_scene(scene, {}, ""))
    loaded = scene_of(two)
    restore_scene(loaded, read_scene(tmp_path / "a.seg3d"))
    assert loaded.segment().instances.ids.tolist() == before.instances.ids.tolist()
    for frame in frames[8:]:
        for each in (scene, loaded):
            visible = each.add_frame(frame)
            each.add_observation(frame, visible, *look(detector, frame, each.wants_objects))
    assert np.array_equal(scene.segment().labels, loaded.segment().labels)
    for name in ("image_features", "queries", "query_centres"):
        assert np.array_equal(getattr(one.inputs[-1], name), getattr(two.inputs[-1], name)), name
    assert scene.memory_mb == pytest.approx(loaded.memory_mb, rel=0.2)


def test_maps_of_other_features_or_another_core_are_refused(box_room, tmp_path) -> None:
    scene = scene_of()
    run(scene, box_room(2))
    write_scene(tmp_path / "a.seg3d", copy_scene(scene, {}, ""))
    other = ByColour()
    other.features_2d = "dino-x"
    loaded = scene_of(other)
    with pytest.raises(MapFileError, match="holds 2D features of toy, the weights want those of dino-x"):
        restore_scene(loaded, read_scene(tmp_path / "a.seg3d"))
    assert len(loaded.map) == 0
    _, arrays, _ = Scene(
        scene.config, _build_map(scene.config, None), Re0Segmenter(scene.config.re0), scene.images
    ).state()
    with pytest.raises(MapFileError, match="was it made with another core"):
        loaded.segmenter.restore({n.removeprefix("segmenter/"): a for n, a in arrays.items() if n.startswith("segm")})


def test_a_reset_forgets_and_a_compacted_map_keeps_features_with_their_points(box_room) -> None:
    predictor = ByColour()
    scene = scene_of(predictor)
    frames = box_room(4)
    run(scene, frames)
    _, rows = scene.map.snapshot()
    before = scene.segmenter._point_features(rows)
    assert before.any()
    new_rows = np.full(scene.map.rows, -1, np.int64)
    new_rows[rows[::2]] = np.arange(len(rows[::2]))
    scene.segmenter.remap(new_rows)
    assert np.array_equal(scene.segmenter._point_features(np.arange(len(rows[::2]))), before[::2])
    scene.reset()
    assert sum(holder.memory_bytes for holder in scene.segmenter.holders.values()) == 0
    assert len(run(scene, frames).snapshot.instances) == 3


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda o: replace(o, queries=replace(o.queries, encoder_id="dino-x")), "features_2d"),
        (lambda o: replace(o, levels=(replace(o.levels[0], encoder_id="toys"),)), "features_2d"),
        (lambda o: replace(o, queries=replace(o.queries, masks=None)), "objects"),
        (lambda o: replace(o, queries=replace(o.queries, features=o.queries.features[:0])), "objects"),
        (lambda o: replace(o, levels=(replace(o.levels[0], stride=0.0),)), "objects"),
    ],
)
def test_objects_that_do_not_fit_are_refused_with_a_reason(box_room, change, reason) -> None:
    scene, (frame, _) = scene_of(), box_room(2)
    visible = scene.add_frame(frame)
    masks, objects = look(ToyDetector(), frame, True)
    with pytest.raises(FrameError) as error:
        scene.add_observation(frame, visible, masks, change(objects))
    assert error.value.reason == reason and scene.keyframes == 0
    scene.add_observation(frame, visible, masks, objects)
    assert scene.keyframes == 1


def test_a_source_that_a_person_vouches_for_is_taken(box_room) -> None:
    predictor = ByColour()
    predictor.features_2d = "dino-x"
    result = run(scene_of(predictor, **{"segdino3d.features_2d": "dino-x"}), box_room(2))
    assert not result.statistics.drops and predictor.inputs[-1].image_features.any()


def test_a_network_that_needs_no_2d_features_runs_no_detector(box_room) -> None:
    class Colours(ByColour):
        needs_image_features = needs_objects = regresses_boxes = False
        features_2d = None

    detector, predictor = ToyDetector(), Colours()
    scene = scene_of(predictor)
    snapshot = run(scene, box_room(3), detector).snapshot
    assert not scene.wants_objects and not detector.runs and len(snapshot.instances) == 3
    assert snapshot.instances.boxes is None and (snapshot.extents < 1.2).all()
    assert predictor.inputs[-1].image_features.shape[1] == 0


def test_looking_asks_a_detector_for_all_of_its_levels_only_if_wanted(box_room) -> None:
    frame = box_room(1)[0]

    class Levels(ToyDetector):
        def detect_levels(self, frame):
            queries, level = self.detect(frame)
            return queries, (level, level)

    detector = Levels()
    masks, objects = look(detector, frame, True)
    assert isinstance(objects, Objects2D) and len(objects.levels) == 2 and masks is objects.queries.masks
    assert look(detector, frame, False)[1] is None and detector.runs == 1


def test_classes_are_in_the_networks_order() -> None:
    ids, names = class_ids_and_names(18)
    assert (ids[0], names[0], ids[-1]) == (3, "cabinet", 39) and len(names) == 18
    ids, names = class_ids_and_names(198)
    # The published network's first thing is its class 2, chair, whose id in an export is 2 too.
    assert ids[:4].tolist() == [2, 4, 5, 6] and names[:4] == ("chair", "table", "door", "couch")
    assert class_ids_and_names(3)[1] == ("class 1", "class 2", "class 3")
    ids, names = class_ids_and_names(2, ("cup", "saucer"))
    assert ids.tolist() == [1, 2] and names == ("cup", "saucer")


def test_cores_side_by_side_see_the_same_map_and_share_ids(box_room) -> None:
    config = build({**SETTINGS, "re0.min_points": 20})
    group = SegmenterGroup(
        {"re0": Re0Segmenter(config.re0), "segdino3d": SegDino3DSegmenter(config.segdino3d, ByColour())}
    )
    scene = Scene(config, _build_map(config, None), group, _build_images(config))
    snapshot = run(scene, box_room()).snapshot
    alone = Scene(config, _build_map(config, None), Re0Segmenter(config.re0), _build_images(config))
    assert np.array_equal(run(alone, box_room()).snapshot.labels, snapshot.labels)
    state = scene.state()
    other = scene.segment_otherwise(lambda cloud, rows: group.prepare_core("segdino3d", cloud, rows))
    assert set(other.names) == set(NAMES) and set(snapshot.names) == {""}
    assert sorted(other.instances.ids) == sorted(snapshot.instances.ids)
    same = (other.labels > 0) & (snapshot.labels > 0)
    assert same.any() and (other.labels[same] == snapshot.labels[same]).mean() > 0.95
    assert (
        scene.snapshot is snapshot and group.others == ("segdino3d",) and group.seconds.keys() == {"re0", "segdino3d"}
    )
    after = scene.state()
    assert state[0] == after[0] and all(np.array_equal(a, after[1][n]) for n, a in state[1].items())


@pytest.mark.parametrize(("masks", "source"), [("geometric", ""), ("files", ""), ("mobile_sam", "mobile_sam")])
def test_the_running_feature_source_is_known_from_the_settings(masks, source) -> None:
    assert features_source(PerceptionConfig(masks=masks)) == source
    assert SegDino3DConfig().features_2d == "auto"
