# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Text queries with a toy encoder: colours are crops, colour names are texts."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seg3d_core.config import QueryConfig
from seg3d_core.errors import ConfigError, QueryError
from seg3d_core.query import calibration
from seg3d_core.query.features import InstanceFeatures, grown_crops
from seg3d_core.query.text import TextQuery, clean_text, load_vocabulary
from seg3d_core.types import Cloud, Instances, Snapshot, View

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


class ColourEncoder:
    """Mean colour as feature. Counts what it is asked."""

    id = "colours"
    dim = 3
    approximate = False

    def __init__(self) -> None:
        self.crops: list[tuple[int, ...]] = []
        self.busy = threading.Lock()

    def encode_text(self, texts: Sequence[str]) -> np.ndarray:
        assert self.busy.acquire(blocking=False), "two threads in the encoder"
        grey = np.full(3, 3**-0.5)
        out = np.array([np.array(COLOURS[t]) / 255 if t in COLOURS else grey for t in texts])
        self.busy.release()
        return out.astype(np.float32).reshape(-1, 3)

    def encode_images(self, crops: Sequence[np.ndarray]) -> np.ndarray:
        assert self.busy.acquire(blocking=False), "two threads in the encoder"
        self.crops += [c.shape for c in crops]
        mean = np.array([c.reshape(-1, 3).mean(0) for c in crops], np.float32)
        self.busy.release()
        return mean / np.linalg.norm(mean, axis=1, keepdims=True)


def picture(left: str, right: str) -> bytes:
    image = np.zeros((60, 80, 3), np.uint8)
    image[:, :40], image[:, 40:] = COLOURS[left], COLOURS[right]
    return cv2.imencode(".jpg", image[:, :, ::-1])[1].tobytes()


def make_snapshot(names: tuple[str, ...] = ()) -> Snapshot:
    """Instance 3 is red, 5 is green, 9 was never seen."""
    instances = Instances(np.array([3, 5, 9], np.int32), np.array([0.9, 0.8, 0.7]), np.zeros(4, int), np.empty(0, int))
    left, right = (5.0, 10.0, 30.0, 50.0), (50.0, 10.0, 75.0, 50.0)
    views = {3: (View(0, left, 0.9), View(1, right, 0.8)), 5: (View(0, right, 0.9), View(7, right, 0.5))}
    images = {0: picture("red", "green"), 1: picture("blue", "red")}
    centres = np.arange(9, dtype=np.float32).reshape(3, 3)
    none = np.empty(0, np.int32)
    return Snapshot(1, 0.0, Cloud.empty(), instances, none, centres, centres + 1, views, images, names)


@pytest.fixture
def vocabulary(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("red\ngreen\nblue\ngrey # neutral\n\nred\n")
    return str(path)


@pytest.fixture
def config(vocabulary):
    return QueryConfig(vocabulary=vocabulary, views=3, crop_growth=(0.1, 0.2, 0.3))


def test_the_instance_that_fits_answers(config) -> None:
    result = TextQuery(config, ColourEncoder()).answer(" The red ", make_snapshot())
    assert result.matched
    assert result.text == "red"
    assert [a.instance_id for a in result.answers] == [3]
    assert result.answers[0].centre == (0.0, 1.0, 2.0)
    assert result.answers[0].extent == (1.0, 2.0, 3.0)
    assert (result.encoder_id, result.approximate, result.calibrated) == ("colours", False, False)


def test_nothing_matches_what_is_not_there(config) -> None:
    result = TextQuery(config, ColourEncoder()).answer("blue", make_snapshot())
    assert not result.matched
    assert result.answers == ()
    assert "nothing matched 'blue'" in result.message
    assert "nearest: instance" in result.message


def calibrated(monkeypatch, slope: float = 20.0, intercept: float = -14.0) -> None:
    curve = calibration.Calibration(
        "colours", slope, intercept, (0.5, 0.8, 0.9), (0.2, 0.5, 0.99), 9, 9, 0.9, 2, (0.2,), (), ""
    )
    monkeypatch.setattr(calibration, "load", lambda encoder_id: curve if encoder_id == "colours" else None)


def test_scores_are_the_calibrated_probability_and_the_threshold_that_of_the_precision(config, monkeypatch) -> None:
    calibrated(monkeypatch)
    snapshot = make_snapshot()
    result = TextQuery(config, ColourEncoder()).answer("red", snapshot)
    assert result.calibrated
    assert [a.instance_id for a in result.answers] == [3]
    similarity = TextQuery(config, ColourEncoder()).compare(["red"], snapshot)[0][0, 0]
    assert result.answers[0].score == pytest.approx(1 / (1 + np.exp(-(20 * similarity - 14))))
    strict = TextQuery(config.model_copy(update={"precision": 0.9}), ColourEncoder())
    assert strict.answer("grey", snapshot).matched is False
    assert strict.answer("red", snapshot).matched


def test_no_more_answers_than_asked_best_first(config, monkeypatch) -> None:
    calibrated(monkeypatch, slope=1.0, intercept=5.0)
    query = TextQuery(config, ColourEncoder())
    assert [a.instance_id for a in query.answer("green", make_snapshot()).answers] == [5, 3]
    assert [a.instance_id for a in query.answer("green", make_snapshot(), top_k=1).answers] == [5]
    scores = [a.score for a in query.answer("green", make_snapshot()).answers]
    assert scores == sorted(scores, reverse=True)


def test_instances_without_a_picture_never_answer(config, monkeypatch) -> None:
    calibrated(monkeypatch, slope=0.0, intercept=10.0)
    assert {a.instance_id for a in TextQuery(config, ColourEncoder()).answer("red", make_snapshot()).answers} == {3, 5}
    blind = replace(make_snapshot(), images={})
    result = TextQuery(config, ColourEncoder()).answer("red", blind)
    assert not result.matched
    assert "picture" in result.message


def test_features_are_the_mean_over_views_and_crops(config) -> None:
    snapshot = make_snapshot()
    features = InstanceFeatures(ColourEncoder(), 3, (0.1, 0.2, 0.3)).of(snapshot)
    encoder = ColourEncoder()
    for row, instance in enumerate((3, 5)):
        vectors = []
        for view in snapshot.views[instance]:
            if view.keyframe in snapshot.images:
                pixels = cv2.imdecode(np.frombuffer(snapshot.images[view.keyframe], np.uint8), cv2.IMREAD_COLOR)
                crops = list(grown_crops(pixels[:, :, ::-1], view.box, (0.1, 0.2, 0.3)))
                vectors += list(encoder.encode_images(crops))
        mean = np.mean(vectors, 0)
        assert features[row] == pytest.approx(mean / np.linalg.norm(mean), abs=1e-5)
    assert not features[2].any()


def test_only_what_changed_is_encoded_again(config) -> None:
    encoder = ColourEncoder()
    query = TextQuery(config, encoder)
    snapshot = make_snapshot()
    assert query.prepare(snapshot)
    assert len(encoder.crops) == 9
    query.answer("red", snapshot)
    query.labels(snapshot)
    assert len(encoder.crops) == 9
    views = {**snapshot.views, 9: (View(1, (1.0, 1.0, 20.0, 20.0), 0.5),)}
    query.answer("red", replace(snapshot, views=views, sequence=2))
    assert len(encoder.crops) == 12


def test_another_image_under_the_same_keyframe_number_is_another_view(config) -> None:
    query = TextQuery(config, ColourEncoder())
    snapshot = make_snapshot()
    assert query.labels(snapshot)[0] == "red"
    swapped = replace(snapshot, images={0: picture("blue", "red"), 1: picture("red", "blue")})
    assert query.labels(swapped) == ("blue", "red", "")


def test_preparing_stops_when_told(config) -> None:
    encoder = ColourEncoder()
    query = TextQuery(config, encoder)
    assert query.prepare(make_snapshot(), lambda: True) is False
    assert encoder.crops == []


def test_the_cache_is_bounded(config, monkeypatch) -> None:
    monkeypatch.setattr("seg3d_core.query.features._CACHE_BYTES", 0)
    features = InstanceFeatures(ColourEncoder(), 1, (0.0,))
    instances = Instances(np.arange(1, 201), np.ones(200), np.zeros(201, int), np.empty(0, int))
    views = {i: (View(0, (0.0, 0.0, 5.0 + i / 10, 20.0), 1.0),) for i in range(1, 201)}
    snapshot = replace(make_snapshot(), instances=instances, views=views)
    assert np.abs(features.of(snapshot)).sum(1).min() > 0
    assert features.memory_bytes <= 64 * 3 * 4


def test_threads_get_the_same_answer_and_take_turns_at_the_encoder(config) -> None:
    query = TextQuery(config, ColourEncoder())
    snapshot = make_snapshot()
    answers, failures = [], []

    def ask() -> None:
        try:
            query.prepare(snapshot)
            answers.append([a.instance_id for a in query.answer("red", snapshot).answers])
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert answers == [[3]] * 8


def test_damaged_images_count_as_not_seen(config) -> None:
    query = TextQuery(config, ColourEncoder())
    assert query.labels(replace(make_snapshot(), images={0: b"no jpeg", 1: b""})) == ("", "", "")


@pytest.mark.parametrize("text", ["", "   ", "\x00\t\n", "...", "the ?"])
def test_empty_texts_are_refused(config, text: str) -> None:
    if text == "the ?":
        assert clean_text(text) == "the"
        return
    with pytest.raises(QueryError) as error:
        TextQuery(config, ColourEncoder()).answer(text, make_snapshot())
    assert error.value.code == "empty_text"


def test_too_long_a_text_is_refused(config) -> None:
    with pytest.raises(QueryError) as error:
        TextQuery(config, None).answer("x" * 10_001, make_snapshot())
    assert error.value.code == "too_long"
    assert TextQuery(config, ColourEncoder()).answer("red " * 2500, make_snapshot()).answers is not None


@pytest.mark.parametrize("encoder", [None, ColourEncoder()])
def test_a_map_without_instances_is_an_error_of_its_own(config, encoder) -> None:
    query = TextQuery(config, encoder)
    with pytest.raises(QueryError) as error:
        query.answer("red", Snapshot.empty())
    assert error.value.code == "no_instances"
    assert query.labels(Snapshot.empty()) == ()
    assert query.prepare(Snapshot.empty())


@pytest.mark.parametrize(
    ("text", "phrase"),
    [
        ("the sofa", "sofa"), ("A  chair\n", "chair"), ("AN armchair!", "armchair"), ("thermos", "thermos"),
        ("das rote Sofa", "das rote Sofa"), ("沙发", "沙发"), ("كرسي", "كرسي"), ("🛋", "🛋"),
        ("so\x00fa\x1b[0m", "so fa [0m"),
        ("cafe\u0301", "café"), ("'the lamp'", "lamp"), ("a", "a"), ("\ud800chair", "chair"),
    ],
)  # fmt: skip
def test_texts_are_cleaned(text: str, phrase: str) -> None:
    assert clean_text(text) == phrase


@settings(deadline=None)
@given(st.text(max_size=60))
def test_any_text_is_cleaned_to_one_printable_line_or_refused(text: str) -> None:
    try:
        phrase = clean_text(text)
    except QueryError:
        return
    assert phrase == phrase.strip()
    assert len(phrase.splitlines()) == 1
    phrase.encode("utf-8")


def test_without_encoder_names_and_ids_answer(config) -> None:
    query = TextQuery(config, None)
    snapshot = make_snapshot(("chair", "Sofa", "chair"))
    assert [a.instance_id for a in query.answer("the chairs", snapshot).answers] == [3, 9]
    assert [a.instance_id for a in query.answer("sofa", snapshot, top_k=1).answers] == [5]
    assert [a.label for a in query.answer("instance 9", snapshot).answers] == ["chair"]
    assert query.labels(snapshot) == ("chair", "Sofa", "chair")
    assert query.encoder_id == ""


def test_without_encoder_and_names_the_message_says_what_to_install(config) -> None:
    result = TextQuery(config, None).answer("chair", make_snapshot())
    assert not result.matched
    assert "seg3d models fetch offline" in result.message
    assert result.encoder_id == ""


def test_labels_are_the_nearest_words(config) -> None:
    assert TextQuery(config, ColourEncoder()).labels(make_snapshot()) == ("red", "green", "")


def test_the_household_list_comes_along() -> None:
    words = load_vocabulary()
    assert 80 <= len(words) <= 130
    assert len(set(words)) == len(words)
    assert {"chair", "sofa", "refrigerator"} <= set(words)


def test_a_bad_vocabulary_names_the_setting(tmp_path) -> None:
    empty = tmp_path / "empty.txt"
    empty.write_text("# nothing\n")
    for path in (tmp_path / "missing.txt", empty):
        with pytest.raises(ConfigError, match=r"query\.vocabulary"):
            load_vocabulary(str(path))


@settings(deadline=None)
@given(
    st.floats(-50, 150), st.floats(-50, 150), st.floats(0, 120), st.floats(0, 120),
    st.lists(st.floats(0, 2), max_size=3),
)  # fmt: skip
def test_crops_are_never_empty_and_grow(x: float, y: float, w: float, h: float, growth: list[float]) -> None:
    image = np.zeros((60, 80, 3), np.uint8)
    crops = list(grown_crops(image, (x, y, x + w, y + h), sorted(growth)))
    assert len(crops) in (0, len(growth))
    assert all(c.size > 0 for c in crops)
    areas = [c.shape[0] * c.shape[1] for c in crops]
    assert areas == sorted(areas)


def test_a_crop_grows_by_its_share_on_each_side() -> None:
    image = np.arange(60 * 80, dtype=np.int64).reshape(60, 80, 1).repeat(3, 2)
    (crop,) = grown_crops(image, (20, 10, 40, 20), (0.1,))
    assert crop.shape == (12, 24, 3)
    assert crop[0, 0, 0] == 9 * 80 + 18
    assert list(grown_crops(image, (-30, 0, -5, 10), (0.1,))) == []
    assert list(grown_crops(image, (float("nan"), 0, 5, 10), (0.1,))) == []
