# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Which 2D object queries a 3D query may attend to: those near a superpoint of its mask (SegDINO3D sec. 3.3).

What lies near what does not change from layer to layer: it is found once, as pairs. A layer then asks which 2D queries
its masks reach, a boolean product of the masks with those pairs.
"""

from __future__ import annotations

import torch
from torch import Tensor

_CHUNK = 1024


class Reachability:
    """Superpoints (S, 3) and 2D queries (O, 3), near where their L1 distance is below `threshold` metres.

    The paper says L2, the published network was trained with L1.
    """

    def __init__(self, superpoints: Tensor, queries_2d: Tensor, threshold: float):
        parts = [torch.cdist(part, queries_2d, p=1.0) < threshold for part in superpoints.split(_CHUNK)]
        superpoint, query = torch.cat(parts).nonzero(as_tuple=True) if parts else superpoints.new_zeros(2, 0).long()
        self._used, column = superpoint.unique(return_inverse=True)
        ones = torch.ones(len(query), device=query.device)
        shape = (len(queries_2d), len(self._used))
        # Said once more by the context: some versions warn unless it is.
        with torch.sparse.check_sparse_tensor_invariants(False):
            self._near = torch.sparse_coo_tensor(torch.stack((query, column)), ones, shape, check_invariants=False)

    def visible(self, allowed: Tensor) -> Tensor:
        """Masks bool (M, S) -> bool (M, O + 1): True where a superpoint of the mask is near; the dummy always."""
        out = torch.ones(len(allowed), self._near.shape[0] + 1, dtype=torch.bool, device=allowed.device)
        if self._near.shape[0] and len(self._used):
            for begin in range(0, len(allowed), _CHUNK):
                masks = allowed[begin : begin + _CHUNK, self._used].T.float()
                # CUDA multiplies no sparse matrix in half precision.
                with torch.autocast(masks.device.type, enabled=False):
                    out[begin : begin + _CHUNK, :-1] = (torch.sparse.mm(self._near, masks) > 0).T
        else:
            out[:, :-1] = False
        return out


def with_dummy(queries_2d: Tensor) -> Tensor:
    """The 2D queries (O, D) and a constant vector of ones behind them, which every 3D query sees."""
    return torch.cat((queries_2d, queries_2d.new_ones(1, queries_2d.shape[1])))
