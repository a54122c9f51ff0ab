# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Models of the transformers library behind our protocols, loaded from local folders only.

One module per family: `mask2former`, `grounding_dino`, `detr` (RT-DETR, D-FINE), `sam` (SAM, SAM 2). `folder` checks a
folder without torch; `images` makes network input as the folder asks, without torchvision; `model` loads and runs.
"""
