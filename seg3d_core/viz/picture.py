# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""`picture.png`: the map in its own colours beside the map coloured by instance, from one oblique view."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..errors import Seg3DError
from ..types import Array, Snapshot
from .colours import id_colours
from .splat import fill_pinholes, spacing, splat
from .view import Viewpoint, choose_view, estimate_up

_Box = tuple[float, float, float, float]

_SUPERSAMPLING = 2
_MAX_POINTS = 1_500_000
_PAGE = (252, 252, 253)
_PANEL_TOP, _PANEL_BOTTOM = np.array([243, 245, 248], np.float32), np.array([224, 228, 234], np.float32)
_INK, _FAINT_INK = (32, 34, 40), (110, 114, 124)


def render_instances(
    snapshot: Snapshot,
    path: str | Path,
    *,
    title: str = "",
    size: tuple[int, int] = (1600, 800),
    up: Array | None = None,
    cameras: Sequence[Array] | None = None,
) -> None:
    """Writes a PNG of `size` (width, height): RGB map on the left, instances with their names on the right.

    `up` (3,) points up in the world; otherwise it is estimated, best with the `cameras`' poses T_world_camera
    (4, 4). Walls that would hide the room and the ceiling are left out. An empty map gives a picture that says
    so. Raises Seg3DError when the file can't be written.
    """
    _save(_page(snapshot, title, size, up, cameras, snapshot.labels), path)


def render_comparison(
    snapshots: Mapping[str, Snapshot],
    path: str | Path,
    *,
    title: str = "",
    size: tuple[int, int] = (1600, 800),
    cameras: Sequence[Array] | None = None,
) -> None:
    """Writes one PNG with a picture as of `render_instances` for each of the snapshots of one map, from one view."""
    first = next(iter(snapshots.values()))
    pages = [_page(s, f"{title}: {name}", size, None, cameras, first.labels) for name, s in snapshots.items()]
    image = Image.new("RGB", (size[0], size[1] * len(pages)), _PAGE)
    for number, page in enumerate(pages):
        image.paste(page, (0, number * size[1]))
    _save(image, path)


def _save(image: Image.Image, path: str | Path) -> None:
    try:
        image.save(path, "PNG", optimize=True)
    except (OSError, ValueError) as error:
        raise Seg3DError(f"cannot write {path}: {error}; give a .png in a folder that exists") from error


def _page(
    snapshot: Snapshot,
    title: str,
    size: tuple[int, int],
    up: Array | None,
    cameras: Sequence[Array] | None,
    view_labels: Array,
) -> Image.Image:
    """`view_labels` (N,) are the instances that the view is chosen for."""
    width, height = (_SUPERSAMPLING * side for side in size)
    unit = height / 800
    margin, top, bottom = round(24 * unit), round((92 if title else 60) * unit), round(56 * unit)
    panel = (width - 3 * margin) // 2, height - top - bottom
    image = Image.new("RGB", (width, height), _PAGE)
    draw = ImageDraw.Draw(image)
    scene = DrawnMap.of(snapshot, panel, up, cameras, view_labels)
    if scene is not None:
        left, right = (
            scene.shade(scene.rgb, 0.35, outlines=False),
            scene.shade(id_colours(scene.labels), 1.0, outlines=True),
        )
        for x, pixels in ((margin, left), (2 * margin + panel[0], right)):
            _paste_rounded(image, pixels, (x, top), 14 * unit)
    if title:
        draw.text((margin, round(18 * unit)), title, _INK, _font(30 * unit))
    for x, heading in ((margin, "RGB map"), (2 * margin + panel[0], "Instances")):
        draw.text((x, top - round(36 * unit)), heading, _FAINT_INK, _font(20 * unit))
    if scene is not None:
        _draw_labels(draw, scene, snapshot, (2 * margin + panel[0], top), unit)
    draw.text((margin, height - round(40 * unit)), _caption(snapshot), _FAINT_INK, _font(18 * unit))
    return image.resize(size, Image.Resampling.BOX)


@dataclass(frozen=True, eq=False)
class DrawnMap:
    """The drawn points, which rows of the cloud they are, and which of them shows in which pixel."""

    rows: Array
    rgb: Array
    normals: Array
    labels: Array
    index: Array
    depth: Array
    view: Viewpoint
    up: Array
    radius: float

    @classmethod
    def of(
        cls,
        snapshot: Snapshot,
        size: tuple[int, int],
        up: Array | None,
        cameras: Sequence[Array] | None,
        view_labels: Array,
    ) -> DrawnMap | None:
        cloud = snapshot.cloud
        rows = np.flatnonzero(np.isfinite(cloud.xyz).all(axis=1))
        rows = rows[:: max(1, -(-len(rows) // _MAX_POINTS))]
        if not len(rows):
            return None
        rows = rows[_without_strays(cloud.xyz[rows])]
        xyz, normals, labels = cloud.xyz[rows].astype(float), cloud.normals[rows].astype(float), snapshot.labels[rows]
        up = estimate_up(normals, cameras) if up is None else np.asarray(up, float) / np.linalg.norm(up)
        radius = 0.95 * spacing(xyz)
        view = choose_view(xyz, normals, view_labels[rows], up, radius, size[0] / size[1])
        shown = view.faces(xyz, normals)
        index, depth = splat(*view.see(xyz[shown], normals[shown]), radius, view.focal * size[1], size)
        if not (index >= 0).any():
            return None
        gap = 2 * round(radius * view.focal * size[1] / float(np.median(depth[index >= 0]))) + 1
        index, depth = fill_pinholes(index, depth, gap)
        return cls(rows[shown], cloud.rgb[rows][shown], normals[shown], labels[shown], index, depth, view, up, radius)

    def shade(self, colours: Array, strength: float, outlines: bool) -> Array:
        """The panel float32 (H, W, 3) with points coloured uint8 (N, 3): soft light, contact shadows, outlines."""
        drawn = self.index >= 0
        normals = cv2.GaussianBlur(
            np.where(drawn[..., None], self.normals[self.index], 0).astype(np.float32), (0, 0), 2
        )
        normals /= np.maximum(np.linalg.norm(normals, axis=2, keepdims=True), 1e-6)
        right, _, forward = self.view.T_view_world[:3, :3]
        lamp = 0.9 * self.up - 0.55 * forward - 0.45 * right
        light = 0.5 + 0.5 * (normals @ (lamp / np.linalg.norm(lamp)).astype(np.float32))
        light = (1 - strength) + strength * (0.68 + 0.36 * light)
        light *= 1 - (0.4 + 0.4 * strength) * self._occlusion
        out = colours[self.index].astype(np.float32) * light[..., None]
        if outlines:
            out[self._outlines()] *= 0.62
        down = np.linspace(0, 1, len(out), dtype=np.float32)[:, None, None]
        backdrop = (1 - down) * _PANEL_TOP + down * _PANEL_BOTTOM
        return np.where(drawn[..., None], out, backdrop)

    @cached_property
    def _occlusion(self) -> Array:
        """0 in the open to about 0.5 in corners and beside what stands nearer, float32 (H, W)."""
        drawn = self.index >= 0
        far = float(self.depth[drawn].max())
        depth = np.where(drawn, self.depth, far).astype(np.float32)
        shadow = np.zeros_like(depth)
        for metres in (0.06, 0.2):
            pixels = max(1.0, metres * self.view.focal * depth.shape[0] / float(np.median(depth)))
            behind = np.clip(depth - _blurred(depth, pixels), 0, metres)
            shadow += 0.5 * behind / metres
        return np.clip(shadow, 0, 1) * 0.6

    def _outlines(self) -> Array:
        """Boolean (H, W): where one instance ends."""
        labels = np.where(self.index >= 0, self.labels[self.index], 0).astype(np.float32)
        kernel = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
        return (cv2.dilate(labels, kernel) != cv2.erode(labels, kernel)) & (labels > 0)


def _blurred(image: Array, sigma: float) -> Array:
    """A Gaussian blur, float32 (H, W); a wide one on a smaller image, as its time goes with its width."""
    step = max(1, int(sigma / 4))
    if step == 1:
        return cv2.GaussianBlur(image, (0, 0), sigma)
    height, width = image.shape
    small = cv2.resize(image, (-(-width // step), -(-height // step)), interpolation=cv2.INTER_AREA)
    return cv2.resize(cv2.GaussianBlur(small, (0, 0), sigma / step), (width, height), interpolation=cv2.INTER_LINEAR)


def _paste_rounded(image: Image.Image, pixels: Array, corner: tuple[int, int], radius: float) -> None:
    panel = Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))
    mask = Image.new("L", panel.size, 0)
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, panel.width - 1, panel.height - 1), radius, 255)
    image.paste(panel, corner, mask)


def _without_strays(xyz: Array) -> Array:
    """Boolean (N,): False for the few points far outside all others, which would shrink the picture."""
    low, high = np.percentile(xyz, (0.1, 99.9), axis=0)
    slack = 0.05 * (high - low) + 0.05
    return ((xyz >= low - slack) & (xyz <= high + slack)).all(axis=1)


def _draw_labels(
    draw: ImageDraw.ImageDraw, scene: DrawnMap, snapshot: Snapshot, corner: tuple[int, int], unit: float
) -> None:
    """Names (or #ids) at the visible middle of instances, the largest first, none over another."""
    seen = np.where(scene.index >= 0, scene.labels[scene.index], 0)
    ids, counts = np.unique(seen[seen > 0], return_counts=True)
    names = dict(zip(snapshot.instances.ids.tolist(), snapshot.names, strict=False))
    font = _font(15.5 * unit)
    taken: list[_Box] = []
    for k in np.argsort(-counts, kind="stable"):
        number = int(ids[k])
        if counts[k] < 260 * unit * unit:
            break
        x, y, inside = inner_point(seen == number)
        if inside < 5 * unit:
            continue
        text = names.get(number) or f"#{number}"
        box = _place(draw, text, font, (corner[0] + x, corner[1] + y), unit)
        panel = (*corner, corner[0] + seen.shape[1], corner[1] + seen.shape[0])
        if _is_free(box, taken, panel):
            taken.append(box)
            _draw_pill(draw, box, text, font, number, unit)


def inner_point(mask: Array) -> tuple[float, float, float]:
    """The pixel (x, y) deepest inside a mask (a mean may lie outside), and how deep in pixels."""
    padded = cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    inside = cv2.distanceTransform(padded, cv2.DIST_L2, 3)
    y, x = np.unravel_index(int(inside.argmax()), inside.shape)
    return float(x) - 1, float(y) - 1, float(inside.max())


def _place(
    draw: ImageDraw.ImageDraw, text: str, font: ImageFont.FreeTypeFont, middle: tuple[float, float], unit: float
) -> _Box:
    half_width, half_height = draw.textlength(text, font) / 2 + 17 * unit, 13 * unit
    x, y = middle
    return x - half_width, y - half_height, x + half_width, y + half_height


def _is_free(box: _Box, taken: list[_Box], panel: _Box) -> bool:
    """Whether a box lies inside the panel and over none of those taken."""
    inside = box[0] > panel[0] and box[1] > panel[1] and box[2] < panel[2] and box[3] < panel[3]
    return inside and all(box[2] < t[0] or box[0] > t[2] or box[3] < t[1] or box[1] > t[3] for t in taken)


def _draw_pill(
    draw: ImageDraw.ImageDraw,
    box: _Box,
    text: str,
    font: ImageFont.FreeTypeFont,
    number: int,
    unit: float,
) -> None:
    colour = tuple(int(c) for c in id_colours(np.array([number]))[0])
    x0, y0, _, y1 = box
    middle = (y0 + y1) / 2
    draw.rounded_rectangle(box, (y1 - y0) / 2, (255, 255, 255), (60, 64, 72), max(1, round(unit)))
    r = 5 * unit
    draw.ellipse((x0 + 8 * unit, middle - r, x0 + 8 * unit + 2 * r, middle + r), colour)
    draw.text((x0 + 24 * unit, middle), text, _INK, font, anchor="lm")


def _caption(snapshot: Snapshot) -> str:
    points = len(snapshot.cloud)
    if not points:
        return "The map is empty: no frame was fused yet."
    share = np.count_nonzero(snapshot.labels) / points
    return f"{len(snapshot.instances)} instances   ·   {points:,} points, {share:.0%} of them on an instance"


def _font(size: float) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font
