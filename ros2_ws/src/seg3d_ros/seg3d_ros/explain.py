# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Why nothing arrives: facts about each topic in, sentences out. No ROS import, so that every case has a test."""

from __future__ import annotations

from dataclasses import dataclass, field

CLOCK_TOLERANCE = 3600.0
# Drops whose causes have sentences of their own here.
EXPLAINED = ("no_pose", "no_partner", "no_camera_info", "internal_error")


@dataclass(frozen=True)
class Offer:
    """One publisher of a topic."""

    node: str
    qos: str
    compatible: bool


@dataclass(frozen=True)
class TopicFacts:
    """What is known of one input. Stamps in seconds; `partner` is the smallest distance to a stamp of the other
    image stream; `suggestions` are topics of the right type that do have publishers."""

    role: str
    topic: str
    type_wanted: str
    asked: str
    types_seen: tuple[str, ...] = ()
    offers: tuple[Offer, ...] = ()
    count: int = 0
    lost: int = 0
    rate: float = 0.0
    last_stamp: float | None = None
    frame_id: str = ""
    partner: float | None = None
    suggestions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Situation:
    """All inputs, the clock, and the way from the camera to the map. `drop_texts` are sentences by reason,
    `keyframes` counts frames with masks, `untaken` is for how many seconds the map took none of the frames."""

    topics: tuple[TopicFacts, ...]
    slop: float = 0.02
    clock: float = 0.0
    use_sim_time: bool = False
    matched: int = 0
    frames: int = 0
    camera_known: bool = False
    pose_source: str = "tf"
    pose_chain: str = ""
    drops: dict[str, int] = field(default_factory=dict)
    drop_texts: dict[str, str] = field(default_factory=dict)
    keyframes: int = 0
    untaken: float = 0.0


def publishers(count: int) -> str:
    return f"{count} publisher{'' if count == 1 else 's'}"


def topic_line(facts: TopicFacts) -> str:
    """Everything about one topic in one line."""
    offers = "; ".join(f"{o.node} offers {o.qos}{'' if o.compatible else ' (INCOMPATIBLE)'}" for o in facts.offers)
    parts = [
        publishers(len(facts.offers)) + (f" ({offers})" if offers else ""),
        f"asked {facts.asked}",
        f"{facts.count} messages",
    ]
    if facts.count:
        parts.append(f"{facts.rate:.1f} Hz")
    if facts.lost:
        parts.append(f"{facts.lost} lost in transport")
    if facts.last_stamp is not None:
        parts.append(f"last stamp {facts.last_stamp:.3f}")
        parts.append(f"frame_id {facts.frame_id!r}")
    if facts.partner is not None:
        parts.append(f"nearest partner stamp {facts.partner * 1e3:.1f} ms away")
    if facts.suggestions and not facts.offers:
        parts.append(f"topics of this type: {', '.join(facts.suggestions)}")
    return ", ".join(parts)


def causes(now: Situation) -> list[str]:
    """Sentences that each name a cause and a cure, the most likely first."""
    needed = [t for t in now.topics if t.role in ("colour", "depth", "camera_info", "pose") or _unheard(t)]
    out = [cause for facts in needed if (cause := _silent(facts) or _gone(facts))]
    if now.use_sim_time and not now.clock:
        out.append("use_sim_time is true and no /clock has come: does the simulator run, or the bag play with --clock?")
    images = [t for t in now.topics if t.role in ("colour", "depth")]
    clocks: list[str] = []
    if len(images) == 2 and all(t.count for t in images):
        clocks = _clocks(now, images)
        if not now.matched:
            out += _unmatched(now, images)
        elif not now.camera_known and any(t.role == "camera_info" and t.count for t in now.topics):
            out.append("camera_info arrives but is not usable: see the drops")
        elif pose := _no_pose(now):
            # A pose that is known, but at other times: two clocks are the likely reason.
            out += [*clocks, pose] if "is known from" in pose else [pose]
    out += _dropped(now)
    # Harmless in itself: a bag that plays without --clock.
    out += [text for text in clocks if text not in out]
    return out or ["frames stopped: the inputs arrived before and are silent now"]


def troubles(now: Situation) -> list[str]:
    """What keeps instances away although frames arrive."""
    out = []
    for facts in (t for t in now.topics if t.role == "masks"):
        if cause := _silent(facts):
            out.append(cause)
        elif not now.keyframes:
            out.append(f"label images on {facts.topic} carry no stamp of a colour image: copy header.stamp from it")
    if now.untaken:
        out.append("; ".join([f"the map has taken none of them for {now.untaken:.0f} s", *_dropped(now)]))
    return out


def _no_pose(now: Situation) -> str:
    silent = any(t.role == "pose" and not t.count for t in now.topics)
    if silent or not now.pose_chain or now.pose_chain.startswith("complete"):
        return ""
    return f"no pose from {'/tf' if now.pose_source == 'tf' else 'the pose topic'}: {now.pose_chain}"


def _dropped(now: Situation) -> list[str]:
    # Frames that newer ones overtook did arrive.
    drops = {reason: n for reason, n in now.drops.items() if reason != "overtaken"}
    worst = sorted(drops.items(), key=lambda item: -item[1])[:5]
    texts = {r: f" ({now.drop_texts[r]})" for r, _ in worst if r in now.drop_texts and r not in EXPLAINED}
    return ["dropped so far: " + ", ".join(f"{r} {n}{texts.get(r, '')}" for r, n in worst)] if worst else []


def _unheard(facts: TopicFacts) -> bool:
    """A transform topic whose publishers offer less than is asked; without publishers it may well be unneeded."""
    return facts.role in ("tf", "tf_static") and any(not o.compatible for o in facts.offers)


def _silent(facts: TopicFacts) -> str | None:
    """Why no message came on one topic; None when some did."""
    if facts.count:
        return None
    wrong = [t for t in facts.types_seen if t != facts.type_wanted]
    if wrong and not facts.offers:
        return f"{facts.topic} carries {', '.join(wrong)}, the {facts.role} input needs {facts.type_wanted}"
    if not facts.offers:
        parameter = {"colour": "rgb_topic", "masks": "mask_topic"}.get(facts.role, f"{facts.role}_topic")
        hint = f"; topics of its type: {', '.join(facts.suggestions)}" if facts.suggestions else ""
        return f"nobody publishes {facts.topic} ({facts.role}); set {parameter}{hint}"
    bad = [o for o in facts.offers if not o.compatible]
    if bad:
        return f"{facts.topic}: {bad[0].node} offers {bad[0].qos}, asked is {facts.asked}: they cannot meet"
    return (
        f"{facts.topic} has {publishers(len(facts.offers))} and no message has come: is the driver running, "
        "or is its shared memory too small for images (FASTRTPS_DEFAULT_PROFILES_FILE)"
    )


def _gone(facts: TopicFacts) -> str | None:
    """A publisher that was there and is not any more; the node listens on for it to come back."""
    if not facts.count or facts.offers:
        return None
    return f"the publisher of {facts.topic} ({facts.role}) is gone after {facts.count} messages: did its stream end?"


def _unmatched(now: Situation, images: list[TopicFacts]) -> list[str]:
    distances = [t.partner for t in images if t.partner is not None]
    if not distances:
        return []
    nearest = min(distances)
    if nearest > CLOCK_TOLERANCE:
        return ["colour and depth carry stamps of different clocks"]
    if nearest > now.slop:
        return [
            f"colour and depth never come within sync_slop {now.slop:g} s of each other: the nearest were "
            f"{nearest:.3f} s apart; raise sync_slop, or let the driver synchronise its streams"
        ]
    return []


def _clocks(now: Situation, images: list[TopicFacts]) -> list[str]:
    stamps = [t.last_stamp for t in images if t.last_stamp is not None]
    if not now.clock or not stamps or abs(now.clock - max(stamps)) <= CLOCK_TOLERANCE:
        return []
    return [
        f"the images' stamps ({max(stamps):.0f}) and this node's clock ({now.clock:.0f}) are over an hour apart and "
        f"use_sim_time is {str(now.use_sim_time).lower()}: right for a bag that plays without --clock, else the stamps "
        "of one program come from another clock"
    ]
