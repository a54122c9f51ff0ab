"""CropFormer and the entity Mask2Former in plain torch (Qi et al., ICCV 2023), with the published checkpoints' names.

`generator.CropFormerMasks` is the mask generator; docs/cropformer.md says how to use it. Importing this package alone
imports no torch.
"""
