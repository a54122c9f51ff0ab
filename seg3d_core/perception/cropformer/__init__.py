# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""CropFormer and the entity Mask2Former in plain torch (Qi et al., ICCV 2023), with the published checkpoints' names.

`generator.CropFormerMasks` is the mask generator; docs/cropformer.md says how to use it. Importing this package alone
imports no torch.
"""
