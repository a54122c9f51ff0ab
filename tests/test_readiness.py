# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""What a profile says at start of itself and of what is not here."""

from __future__ import annotations

import re

import pytest

from seg3d_core import readiness
from seg3d_core.build import build_masks
from seg3d_core.cli import demo
from seg3d_core.config import PROFILES, build
from seg3d_core.errors import WeightsError
from seg3d_core.perception import weights


@pytest.fixture
def nothing(monkeypatch, tmp_path):
    """No weights anywhere, all libraries."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(weights, "_installed", lambda entry: [])
    monkeypatch.setattr(readiness, "find_spec", lambda name: object())
    return tmp_path / "seg3d" / "weights"


def parts(profile: str, **changes: object) -> list[str]:
    settings = {name.replace("__", "."): value for name, value in changes.items()}
    return readiness.missing_parts(build({"perception.device": "auto", **settings}, profile))


def test_the_default_profile_needs_nothing_to_find_things(nothing) -> None:
    assert next(iter(PROFILES)) == "cpu-geometric"
    assert parts("cpu-geometric", query__encoder="none") == []
    (text,) = parts("cpu-geometric")
    assert "no names" in text and "`seg3d models fetch offline`" in text


@pytest.mark.parametrize("profile", PROFILES)
def test_every_missing_part_says_what_mends_it(nothing, profile) -> None:
    mends = re.compile(r"seg3d models fetch|pip install|--set |hf download|docs/models\.md|set it to|ask for access")
    for sentence in parts(profile):
        assert mends.search(sentence), sentence


@pytest.mark.parametrize(
    ("profile", "expected"),
    [
        ("cpu", ["fetch mobile_sam"]),
        ("gpu", ["fetch mobile_sam", "query.open_clip_weights is empty"]),
        ("paper-re0", ["fetch cropformer_hornet --from", "CC BY-NC"]),
        ("paper-segdino3d", ["perception.model_dir is empty", "segdino3d.weights", "by depth alone"]),
    ],
)
def test_what_a_profile_lacks_is_told(nothing, profile, expected) -> None:
    text = " | ".join(parts(profile))
    assert all(part in text for part in expected), text


def test_libraries_that_are_not_installed_name_their_extra(nothing, monkeypatch) -> None:
    monkeypatch.setattr(readiness, "find_spec", lambda name: None if name in ("torch", "tokenizers") else object())
    text = " | ".join(parts("cpu"))
    assert "needs torch: pip install 'seg3d[sam]'" in text and "needs tokenizers: pip install 'seg3d[offline]'" in text
    with pytest.raises(WeightsError, match=r"needs torch: pip install 'seg3d\[sam\]'"):
        build_masks(build(profile="cpu"))


def test_a_truncated_file_is_not_taken_for_a_ready_one(nothing) -> None:
    nothing.mkdir(parents=True)
    (nothing / "mobile_sam.pt").write_bytes(b"half")
    text = " | ".join(parts("cpu", query__encoder="none"))
    assert "4 bytes instead of 40728226" in text and "fetch mobile_sam" in text
    assert readiness.better_profile("cpu-geometric") == ""


def test_the_better_profile_is_offered_where_it_is_ready(monkeypatch) -> None:
    monkeypatch.setattr(readiness, "_masks", lambda config: [])
    assert "cpu is ready" in readiness.better_profile("cpu-geometric")
    assert readiness.better_profile("cpu") == readiness.better_profile("published-re0") == ""


def test_the_best_profile_is_the_one_whose_parts_are_here(nothing, monkeypatch, tmp_path) -> None:
    profile, absent = readiness.best_profile()
    assert profile == "cpu-geometric" and "seg3d models fetch mobile_sam" in " ".join(absent)
    given = tmp_path / "given"
    given.mkdir()
    with (given / "mobile_sam.pt").open("wb") as file:
        file.truncate(weights.RECORDS["mobile_sam"].size)
    assert readiness.best_profile(str(given)) == ("cpu", [])
    monkeypatch.setattr(readiness, "find_spec", lambda name: None if name == "torch" else object())
    profile, absent = readiness.best_profile(str(given))
    assert profile == "cpu-geometric" and "needs torch: pip install 'seg3d[sam]'" in " ".join(absent)


def test_the_demo_takes_the_best_profile_and_says_what_a_better_one_needs(monkeypatch, capsys) -> None:
    needs = "run `seg3d models fetch mobile_sam`"
    monkeypatch.setattr(readiness, "best_profile", lambda folder: ("cpu-geometric", [needs]))
    options = demo.arguments([], "")
    profile, chosen = demo.choose_profile(options)
    assert profile == "cpu-geometric" and "query.weights_dir" not in chosen
    assert f"better masks: {needs}" in capsys.readouterr().out
    depth_rate = options.rate
    monkeypatch.setattr(readiness, "best_profile", lambda folder: ("cpu", [] if folder == "given" else [needs]))
    options = demo.arguments(["--weights-dir", "given"], "")
    assert demo.choose_profile(options) == ("cpu", {**demo.SETTINGS, "query.weights_dir": "given"})
    assert 0 < options.rate < depth_rate and not capsys.readouterr().out
    options = demo.arguments(["--weights-dir", "given", "--rate", "9"], "")
    demo.choose_profile(options)
    assert options.rate == 9


def test_the_opening_names_the_masks() -> None:
    assert "masks from geometric," in readiness.opening("cpu-geometric", build())
    assert "masks from mobile_sam and geometric," in readiness.opening("cpu", build(profile="cpu"))


def test_terms_that_forbid_commerce_are_said_at_start() -> None:
    assert "not for commercial use" in readiness.opening("paper-re0", build(profile="paper-re0"))
    for profile in ("cpu-geometric", "cpu", "gpu"):
        assert "commercial" not in readiness.opening(profile, build(profile=profile))


def test_a_gpu_that_is_not_there_is_told(monkeypatch) -> None:
    torch = pytest.importorskip("torch", reason="needs torch: pip install 'seg3d[sam]'")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert any("torch sees no GPU" in text for text in readiness.missing_parts(build(profile="gpu")))


def test_permissive_weights_alone_are_in_the_profiles_that_are_not_a_papers() -> None:
    for name in ("mobile_sam", *weights.GROUPS["offline"]):
        assert (
            "Apache-2.0" in weights.RECORDS[name].weights_licence and "NC" not in weights.RECORDS[name].weights_licence
        )
    assert all(build(profile=p).perception.masks in ("geometric", "both") for p in ("cpu-geometric", "cpu", "gpu"))
