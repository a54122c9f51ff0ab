"""RE0's zero-shot core as a stream: masks are aligned with what the map already says, points vote, and
instances that share a mask merge.

The reading of the paper's holes, in short: label 0 never wins an alignment and is left out of its
denominator; a mask with too few labelled points, or with no label above `k_align`, becomes a new label; ties
go to the newest label. In the paper several masks of a keyframe may take one label; by default a label goes to
one mask here, for that keeps neighbours apart that an early mask held together. Votes are cast after all masks of the
keyframe are aligned, so that no mask reads what another one wrote. Labels are never merged in the state: a
snapshot merges a copy, and can decide otherwise next time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numba import njit
from scipy.spatial import cKDTree

from ..config import Re0Config
from ..errors import FrameError, MapFileError
from ..lifting.keyframe_log import KeyframeLog, LoggedKeyframe, contingency
from ..lifting.mask_votes import MaskVotes, PointVotes
from ..lifting.views import sightings
from ..types import Array, Cloud, Instances, Masks2D, View
from .matching import greedy_pairs

BACKGROUND = 1
FIRST_LABEL = 2
# Tables of labels by masks are dense: beyond this, an image that holds no labels at all would take gigabytes.
MOST_MASKS = 4096
FILL_SWEEPS = 3
FILL_NEIGHBOURS = 8
# Neighbours farther than this many times the usual distance are another surface.
FILL_REACH = 3.0


@dataclass(frozen=True, eq=False)
class Re0Segmentation:
    """Instances (ids 0) over the cloud's point ids, and the best views of each, best first."""

    instances: Instances
    views: tuple[tuple[View, ...], ...]


class Re0Segmenter:
    """`segmenters.base.Segmenter` after RE0, sections 3.1 and 3.2."""

    def __init__(self, config: Re0Config):
        self.config = config
        self._votes = MaskVotes(config.slots)
        self._log = KeyframeLog(config.max_keyframes)
        self._next_label = FIRST_LABEL

    @property
    def memory_bytes(self) -> int:
        return self._votes.memory_bytes + self._log.memory_bytes

    def observe(self, keyframe: int, rows: Array, pixels: Array, depths: Array, masks: Masks2D) -> None:
        """Aligns the keyframe's masks (RE0 Alg. 1) and casts their votes (eq. 2).

        Raises FrameError where a pixel lies outside the label image, or a mask number above `len(masks)`.
        """
        at = _rounded(pixels, masks)
        point_masks = masks.labels[at[:, 1], at[:, 0]].astype(np.int16)
        self._votes.grow(int(rows.max(initial=-1)) + 1)
        aligned, self._next_label = align_masks(
            self._votes.majority(rows),
            point_masks,
            len(masks),
            self._next_label,
            self.config,
        )
        if self.config.background_votes:
            aligned[0] = BACKGROUND
        self._votes.cast(rows, aligned[point_masks])
        self._log.append(keyframe, rows, point_masks, at, len(masks))

    def prepare(self, cloud: Cloud, rows: Array) -> Callable[[], Re0Segmentation]:
        """Copies the votes of the cloud's points; the returned function needs nothing else of this object."""
        self._votes.grow(int(rows.max(initial=-1)) + 1)
        return _Job(self.config, cloud, rows.copy(), self._votes.copy(rows), tuple(self._log)).segment

    def remap(self, new_rows: Array) -> None:
        self._votes.remap(new_rows)
        self._log.remap(new_rows)

    def reset(self) -> None:
        self._votes.reset()
        self._log.reset()
        self._next_label = FIRST_LABEL

    def state(self) -> dict[str, Array]:
        votes = {f"votes_{name}": array for name, array in self._votes.state().items()}
        log = {f"log_{name}": array for name, array in self._log.state().items()}
        return {**votes, **log, "next_label": np.array([self._next_label], np.int64)}

    def restore(self, state: Mapping[str, Array]) -> None:
        """From `state`. Raises MapFileError where arrays are missing or do not belong together."""
        self.reset()
        try:
            self._votes.restore(_part(state, "votes_"))
            if state["log_rows"].max(initial=-1) >= len(self._votes):
                raise MapFileError("damaged", "the keyframe log speaks of points that have no votes")
            self._log.restore(_part(state, "log_"))
            self._next_label = max(int(state["next_label"][0]), self._votes.largest_label + 1, FIRST_LABEL)
        except KeyError as error:
            raise MapFileError("damaged", f"the segmenter's state lacks {error}: save the map again") from None


@dataclass(frozen=True, eq=False)
class _Job:
    """All that one segmentation needs; nothing here is shared with the stream but arrays that never change."""

    config: Re0Config
    cloud: Cloud
    rows: Array
    votes: PointVotes
    keyframes: tuple[LoggedKeyframe, ...]

    def segment(self) -> Re0Segmentation:
        labels = self.votes.majority()
        # Renumbered in their order: labels are given out for ever, and most of them have no points any more.
        used = np.union1d(np.arange(FIRST_LABEL), labels)
        labels = np.searchsorted(used, labels).astype(np.int32)
        if self.config.merge:
            labels = self._merged(labels, len(used))
        if self.config.fill_holes:
            labels = fill_holes(labels, self.votes.sightings, self.cloud.xyz)
        sizes = np.bincount(labels, minlength=len(used))
        sizes[:FIRST_LABEL] = 0
        kept = np.flatnonzero(sizes >= self.config.min_points)
        number = np.zeros(len(used), np.int32)
        number[kept] = np.arange(1, len(kept) + 1)
        seen = sightings(self.keyframes, self._by_row(number[labels], outside=-1), len(kept))
        instances = Instances.from_labels(number[labels], self.cloud.ids, seen.scores(sizes[kept]))
        return Re0Segmentation(instances, seen.best_views())

    def _merged(self, labels: Array, label_count: int) -> Array:
        by_row = self._by_row(labels, outside=0)
        root = np.arange(label_count, dtype=np.int32)
        sizes = np.bincount(labels, minlength=label_count)
        for keyframe in self.keyframes:
            seen = by_row[keyframe.rows]
            present, counts = contingency(seen, keyframe.masks, label_count, keyframe.mask_count)
            merge_in_keyframe(present, counts, root, sizes, self.config.k_proj, self.config.k_mask)
        return root[labels]

    def _by_row(self, labels: Array, outside: int) -> Array:
        """Labels of the cloud's points int32 (rows,), by map row; rows outside the cloud are `outside`."""
        top = max((int(k.rows.max(initial=-1)) for k in self.keyframes), default=-1)
        out = np.full(max(top, int(self.rows.max(initial=-1))) + 1, outside, np.int32)
        out[self.rows] = labels
        return out


def _part(state: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    return {name[len(prefix) :]: array for name, array in state.items() if name.startswith(prefix)}


def _rounded(pixels: Array, masks: Masks2D) -> Array:
    """Pixels (n, 2) as whole ones of the label image, int64. Raises FrameError where masks and pixels do not fit."""
    height, width = masks.labels.shape
    if len(masks) > MOST_MASKS:
        raise FrameError(
            "too_many_masks",
            f"{len(masks)} masks in one image, at most {MOST_MASKS} are taken: is it an image of labels?",
        )
    if masks.labels.size and not 0 <= masks.labels.min() <= masks.labels.max() <= len(masks):
        raise FrameError("mask_numbers", f"mask numbers must run from 0 to {len(masks)}: see Masks2D.from_labels")
    if len(pixels) and not (pixels.min() >= -0.501 and (pixels.max(axis=0) <= (width - 0.499, height - 0.499)).all()):
        raise FrameError(
            "mask_size", f"masks of {width} x {height} pixels are smaller than the frame: make them its size"
        )
    # A pixel just inside the border may round to just outside of it.
    return np.clip(np.rint(pixels).astype(np.int64), 0, (width - 1, height - 1))


def align_masks(
    point_labels: Array, point_masks: Array, mask_count: int, next_label: int, config: Re0Config
) -> tuple[Array, int]:
    """RE0 Alg. 1 with the decisions above: int32 labels of masks 0..mask_count, and the next free one.

    point_labels int32 (n,) are the points' labels of now, in which 0 and background count as none; point_masks
    int16 (n,). Mask 0 and masks without points take no label.
    """
    foreground = np.where(point_labels < FIRST_LABEL, np.int32(0), point_labels)
    present, counts = contingency(foreground, point_masks, next_label, mask_count)
    sizes = np.bincount(point_masks, minlength=mask_count + 1)
    labelled = counts.sum(axis=0)
    labelled[labelled < config.min_labelled * sizes] = 0
    labelled[0] = 0
    choose = _choose_exclusive if config.exclusive else _choose_majority
    choice = choose(counts, labelled, config.k_align)
    out = np.zeros(mask_count + 1, np.int32)
    aligned = choice >= 0
    out[aligned] = present[choice[aligned]]
    fresh = np.flatnonzero(~aligned & (sizes > 0))[int(sizes[0] > 0) :]
    out[fresh] = np.arange(next_label, next_label + len(fresh))
    return out, next_label + len(fresh)


def _choose_majority(counts: Array, labelled: Array, k_align: float) -> Array:
    """The paper's rule: each mask takes the label of most of its points, the newest at ties, if above `k_align`.

    counts (labels, masks + 1); labelled (masks + 1,), 0 where a mask may not align. Gives row numbers, -1 = none.
    """
    if not len(counts):
        return np.full(len(labelled), -1)
    newest_first = counts[::-1]
    best = len(counts) - 1 - newest_first.argmax(axis=0)
    return np.where((labelled > 0) & (newest_first.max(axis=0) > k_align * labelled), best, -1)


def _choose_exclusive(counts: Array, labelled: Array, k_align: float) -> Array:
    """One to one: pairs that share more than `k_align` of the mask's or the label's points, by falling IoU.

    Shapes as in `_choose_majority`. Ties go to the newest label, then to the smallest mask.
    """
    visible = counts.sum(axis=1)[:, None]
    label, mask = np.nonzero((labelled > 0) & (counts > k_align * np.minimum(labelled, visible)))
    common = counts[label, mask]
    iou = common / (labelled[mask] + visible[label, 0] - common)
    order = np.lexsort((mask, -label, -iou))
    return greedy_pairs(mask[order], label[order], len(labelled), len(counts))[0]


@njit(cache=True, nogil=True)
def merge_in_keyframe(present: Array, counts: Array, root: Array, sizes: Array, k_proj: float, k_mask: float) -> None:
    """RE0 eqs. 3 to 5 in one keyframe; writes into `root` (the label that each label is merged into) and `sizes`.

    present (k,), counts (k, masks + 1): `contingency` of the labels before any merge. Pairs i < j of merged
    labels in ascending order: both must show more than `k_proj` of their points, more than `k_mask` of these on
    one mask (ties to the smallest), and the same; then j becomes i, and later pairs see the larger i.
    Background never merges.
    """
    local = np.zeros(len(root), np.int64)
    for k in range(len(present)):
        local[root[present[k]]] = 1
    local[:FIRST_LABEL] = 0
    names = np.flatnonzero(local)
    for i in range(len(names)):
        local[names[i]] = i + 1
    masks = counts.shape[1]
    table = np.zeros((len(names), masks), np.int64)
    for k in range(len(present)):
        i = local[root[present[k]]] - 1
        if i >= 0:
            for m in range(masks):
                table[i, m] += counts[k, m]
    mask = np.zeros(len(names), np.int64)
    for i in range(len(names)):
        mask[i] = _shared_mask(table[i], sizes[names[i]], k_proj, k_mask)
    for i in range(len(names)):
        for j in range(i + 1, len(names)):
            if mask[i] == 0 or mask[j] != mask[i]:
                continue
            for m in range(masks):
                table[i, m] += table[j, m]
            sizes[names[i]] += sizes[names[j]]
            sizes[names[j]] = 0
            for label in range(len(root)):
                if root[label] == names[j]:
                    root[label] = names[i]
            mask[j] = 0
            mask[i] = _shared_mask(table[i], sizes[names[i]], k_proj, k_mask)


@njit(cache=True, nogil=True)
def _shared_mask(counts: Array, size: int, k_proj: float, k_mask: float) -> int:
    """The mask by which an instance may merge in a keyframe (RE0 eqs. 3 and 4), 0 = none."""
    visible, best, most = 0, 0, 0
    for mask in range(len(counts)):
        visible += counts[mask]
        if mask > 0 and counts[mask] > most:
            best, most = mask, counts[mask]
    return best if visible > k_proj * size and most > k_mask * visible else 0


def fill_holes(labels: Array, sightings: Array, xyz: Array) -> Array:
    """Points that no keyframe saw take the majority of their neighbours' labels, background included.

    labels int32 (N,), sightings (N,), xyz (N, 3); 3 sweeps, so that wide holes close from their rim. Points
    that were seen keep what they have. Ties go to the newest label.
    """
    holes = np.flatnonzero(sightings == 0)
    if len(holes) in (0, len(labels)):
        return labels
    out = np.where((labels == 0) & (sightings > 0), BACKGROUND, labels).astype(np.int32)
    tree = cKDTree(xyz, balanced_tree=False, compact_nodes=False)
    distances, neighbours = tree.query(xyz[holes], min(FILL_NEIGHBOURS + 1, len(xyz)))
    usual = np.median(distances[:, 1])
    neighbours = np.where(distances <= FILL_REACH * usual, neighbours, -1)
    for _ in range(FILL_SWEEPS):
        out[holes] = _neighbour_majority(out, holes, neighbours)
    return out


@njit(cache=True, nogil=True)
def _neighbour_majority(labels: Array, points: Array, neighbours: Array) -> Array:
    out = np.empty(len(points), np.int32)
    for i in range(len(points)):
        out[i] = labels[points[i]]
        most = 0
        if out[i] > 0:
            continue
        for j in neighbours[i]:
            if j < 0 or labels[j] == 0:
                continue
            count = 0
            for k in neighbours[i]:
                count += k >= 0 and labels[k] == labels[j]
            if count > most or (count == most and labels[j] > out[i]):
                out[i], most = labels[j], count
    return out
