# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Text and image encoders: open_clip with local weights, and an offline stand-in made of two small networks.

The classes are imported from their modules, so that nothing here loads onnxruntime or torch before it is needed.
"""
