# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""From values to a `Config` and back: by dotted names, out of texts and YAML files."""

from __future__ import annotations

import reprlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from ..errors import ConfigError, printable
from .profiles import PROFILES
from .settings import Config

# More would be the same fault many times.
_MOST_FAULTS = 5


def iterate(config: Config) -> Iterator[tuple[str, Any, FieldInfo]]:
    """Every setting as (dotted name, value, pydantic field), in order."""
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        if isinstance(value, BaseModel):
            for inner, inner_field in type(value).model_fields.items():
                yield f"{name}.{inner}", getattr(value, inner), inner_field
        else:
            yield name, value, field


def build(values: Mapping[str, Any] | None = None, profile: str = "cpu-geometric") -> Config:
    """A config from a profile and dotted names on top, e.g. {"map.voxel_size": 0.03}.

    Raises ConfigError naming the setting, the value and what is allowed.
    """
    if profile not in PROFILES:
        raise ConfigError(f"no profile {profile!r}: choose one of {', '.join(PROFILES)}")
    tree: dict[str, Any] = {}
    known = {name for name, _, _ in iterate(Config())}
    for name, value in {**PROFILES[profile], **(values or {})}.items():
        if name not in known:
            raise ConfigError(f"no setting {printable(name, 80)!r}{_nearest(name[:80], known)}")
        group, _, inner = name.rpartition(".")
        (tree.setdefault(group, {}) if group else tree)[inner] = value
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(explain(error)) from None


def parse_assignments(assignments: Sequence[str], flag: str = "--set") -> dict[str, Any]:
    """`["map.voxel_size=0.03", ...]` to {"map.voxel_size": 0.03}; values are YAML. Raises ConfigError."""
    out = {}
    for text in assignments:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise ConfigError(f"{flag} wants name=value, not {text!r}")
        try:
            out[name.strip()] = yaml.safe_load(value)
        except (ValueError, TypeError, OverflowError, RecursionError, yaml.YAMLError):
            text, value = printable(text, 200), printable(value, 200)
            raise ConfigError(f"{flag} {text!r}: {value!r} is no value; quote it if it is meant as a text") from None
    return out


def load_file(path: str | Path) -> dict[str, Any]:
    """A YAML file of settings, nested or dotted, as dotted names. Raises ConfigError."""
    try:
        tree = yaml.safe_load(Path(path).read_text()) or {}
        if isinstance(tree, dict):
            return _flat(tree)
    except (OSError, ValueError, TypeError, OverflowError, RecursionError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read settings from {path}: {printable(str(error))}") from None
    raise ConfigError(f"{path} holds no settings: expected `map: {{voxel_size: 0.02}}` and the like")


def _flat(tree: dict[Any, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat.update({f"{name}.{inner}": v for inner, v in value.items()})
        else:
            flat[str(name)] = value
    return flat


def flatten(config: Config) -> dict[str, Any]:
    """{dotted name: value} of every setting."""
    return {name: value for name, value, _ in iterate(config)}


def explain(error: ValidationError) -> str:
    """The settings that are wrong, what they are and what is allowed, on one line of bounded length."""
    lines = []
    for e in error.errors()[:_MOST_FAULTS]:
        name = printable(".".join(str(part) for part in e["loc"]), 80)
        lines.append(f"{name} = {_shown(e['input'])}: {printable(e['msg'], 300)}")
    return "; ".join(lines)


def _shown(value: Any) -> str:
    """A value of any size: YAML can name one list within another often enough to fill all memory with its text."""
    try:
        return printable(reprlib.repr(value), 200)
    except ValueError:  # Python writes no numbers of thousands of digits
        return f"a {type(value).__name__} of very many digits"


def _nearest(name: str, known: set[str]) -> str:
    import difflib

    close = difflib.get_close_matches(name, known, 1) or [k for k in sorted(known) if k.endswith("." + name)]
    return f"; did you mean {close[0]!r}?" if close else ""
