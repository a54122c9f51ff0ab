# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""What became of corrected poses, counted and in words, live and offline alike."""

from __future__ import annotations

from ..mapping.corrections import CorrectionOutcome
from .statistics import Recorder


def count_correction(recorder: Recorder, outcome: CorrectionOutcome) -> None:
    """Counts an outcome; poses that were refused are counted when the correction comes."""
    if outcome.state == "applied":
        recorder.count("corrections applied")
        recorder.count("points moved by corrections", outcome.moved)
        recorder.count("points merged by corrections", outcome.merged)
        return
    recorder.count("corrections")
    if outcome.state != "waiting":
        recorder.count(f"corrections: {_WORDS[outcome.state]}")
    for name, n in (("of unknown stamps", outcome.unknown), ("improper", outcome.improper)):
        if n:
            recorder.count(f"correction poses {name}", n)


_WORDS = {"small": "too small to apply", "unknown": "of no known stamp", "fixed": "of a given cloud"}


def why_nothing(outcome: CorrectionOutcome) -> str:
    """A sentence on a correction that was not applied."""
    if outcome.state == "fixed":
        return "a given cloud stays where it is"
    if outcome.state == "small":
        return (
            f"it moves no camera by more than {1000 * outcome.translation:.2f} mm or {1000 * outcome.rotation:.3f} "
            "mrad (corrections.translation, corrections.rotation)"
        )
    refused = f", {outcome.improper} are no poses" if outcome.improper else ""
    return f"none of its stamps is one of a frame in the map ({outcome.unknown} are not{refused}): are the clocks one?"


def unanchored_text(outcome: CorrectionOutcome) -> str:
    """For points that no correction moves."""
    return (
        f"{outcome.unanchored} points come from a map file that tells no poses: they stay where they are when poses "
        "are corrected"
    )
