# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""The readings of RE0 by name; and the two in which every point has one label: what they share, where they differ."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from ...config import Re0Config
from ...lifting.mask_votes import MaskVotes
from ...lifting.views import InstanceSightings
from ...types import Array
from .alignment import Majority, align_masks
from .base import FIRST_LABEL, Reading, StateCopy
from .merging import MergeRule, merge_instances
from .streaming import StreamingReading


def reading_of(config: Re0Config) -> Reading:
    """The reading that `config.reading` names."""
    if config.reading == "seg3d":
        return StreamingReading()
    return {"paper": paper, "published": published}[config.reading](config)


def paper(config: Re0Config) -> LabelReading:
    """The text of the paper, its holes filled so that it works."""
    rule = MergeRule(config.k_proj, config.k_mask, at_least=False, background=False)
    return LabelReading(
        slots=config.slots,
        choose=Majority(config.k_align, config.min_labelled, config.count_unlabelled),
        write=MaskVotes.cast,
        merge=rule if config.merge else None,
        score=_no_doubt,
    )


def published(config: Re0Config) -> LabelReading:
    """What the released code does."""
    rule = MergeRule(config.k_proj, config.k_mask, at_least=True, background=True)
    return LabelReading(
        slots=1,
        choose=Majority(config.k_align, min_labelled=0.0, count_unlabelled=True),
        write=MaskVotes.keep_newest,
        merge=rule if config.merge else None,
        score=_no_doubt,
    )


def _no_doubt(seen: InstanceSightings, sizes: Array) -> Array:
    return np.ones(len(sizes), np.float32)


@dataclass(frozen=True)
class LabelReading:
    """`base.Reading` in which a point has one label.

    choose: Alg. 1; write: how the labels given to visible points enter the state (eq. 2); merge: eqs. 3 to 5,
    None = never.
    """

    slots: int
    choose: Majority
    write: Callable[[MaskVotes, Array, Array], None]
    merge: MergeRule | None
    score: Callable[[InstanceSightings, Array], Array]
    enough_pictures: int | None = None
    memory_bytes: int = 0

    def observe(self, votes: MaskVotes, rows: Array, masks: Array, mask_count: int, next_label: int) -> int:
        names, next_label = align_masks(votes.majority(rows), masks, mask_count, next_label, self.choose)
        self.write(votes, rows, names[masks])
        return next_label

    def reset(self) -> None:
        """Nothing: each snapshot is for itself."""

    def state(self) -> dict[str, Array]:
        return {}

    def restore(self, state: Mapping[str, Array]) -> None:
        """Nothing was left behind."""

    def instances(self, state: StateCopy) -> Array:
        labels = state.votes.majority()
        # Renumbered in their order: labels are given out for ever, and most of them have no points any more.
        used = np.union1d(np.arange(FIRST_LABEL), labels)
        labels = np.searchsorted(used, labels).astype(np.int32)
        if self.merge is not None:
            labels = merge_instances(labels, len(used), state, self.merge)
        return np.maximum(labels - np.int32(FIRST_LABEL - 1), 0)

    def scores(self, seen: InstanceSightings, sizes: Array) -> Array:
        return self.score(seen, sizes)
