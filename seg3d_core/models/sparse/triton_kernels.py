# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Two Triton kernels of sparse convolution: the product, and the gradient of its weights.

Both walk over blocks of `ROWS` target rows. `active` (n_blocks, K) lists, first in each row, the weights that any row
of the block has a source under, and `counts` (n_blocks,) how many these are: on surfaces most weights are absent.
"""

# Triton reads the annotations of its arguments: they must not be strings, so no `from __future__ import annotations`.
import triton
import triton.language as tl


@triton.jit
def multiply(
    features, kernel, rows, active, counts, result, scale, shift,
    n_target, n_weights, n_in, n_out,
    ROWS: tl.constexpr, IN: tl.constexpr, OUT: tl.constexpr, HAS_EPILOGUE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """result[t] = sum over weights k of features[rows[k, t]] @ kernel[k], for one block of t and `OUT` columns."""
    block, columns = tl.program_id(0), tl.program_id(1) * OUT + tl.arange(0, OUT)
    targets, places = block * ROWS + tl.arange(0, ROWS), tl.arange(0, IN)
    is_target, is_column = targets < n_target, columns < n_out
    steps = tl.cdiv(n_in, IN)
    total = tl.zeros((ROWS, OUT), tl.float32)
    for step in range(0, tl.load(counts + block) * steps):
        weight = tl.load(active + block * n_weights + step // steps)
        channels = (step % steps) * IN + places
        is_channel = channels < n_in
        sources = tl.load(rows + weight.to(tl.int64) * n_target + targets, mask=is_target, other=-1)
        left = tl.load(
            features + sources.to(tl.int64)[:, None] * n_in + channels[None, :],
            mask=(sources >= 0)[:, None] & is_channel[None, :],
            other=0.0,
        )
        right = tl.load(
            kernel + (weight * n_in + channels)[:, None] * n_out + columns[None, :],
            mask=is_channel[:, None] & is_column[None, :],
            other=0.0,
        )
        total = tl.dot(left, right, total, input_precision=PRECISION)
    if HAS_EPILOGUE:
        factor = tl.load(scale + columns, mask=is_column, other=0.0).to(tl.float32)
        offset = tl.load(shift + columns, mask=is_column, other=0.0).to(tl.float32)
        total = total * factor[None, :] + offset[None, :]
    tl.store(
        result + targets.to(tl.int64)[:, None] * n_out + columns[None, :],
        total.to(result.dtype.element_ty),
        mask=is_target[:, None] & is_column[None, :],
    )


@triton.jit
def multiply_transposed(
    features, gradient, rows, result,
    n_target, n_weights, n_in, n_out, blocks_each,
    ROWS: tl.constexpr, IN: tl.constexpr, OUT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """result[p, k] = sum over targets t of part p of features[rows[k, t]]^T @ gradient[t], an (IN, OUT) tile of it.

    A part is `blocks_each` blocks. The parts are summed afterwards: no atomic addition, equal input gives equal bytes.
    """
    part, weight, tile = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    tiles_out = tl.cdiv(n_out, OUT)
    channels = (tile // tiles_out) * IN + tl.arange(0, IN)
    columns = (tile % tiles_out) * OUT + tl.arange(0, OUT)
    is_channel, is_column = channels < n_in, columns < n_out
    total = tl.zeros((IN, OUT), tl.float32)
    first = part * blocks_each
    for block in range(first, tl.minimum(first + blocks_each, tl.cdiv(n_target, ROWS))):
        targets = block * ROWS + tl.arange(0, ROWS)
        sources = tl.load(rows + weight.to(tl.int64) * n_target + targets, mask=targets < n_target, other=-1)
        if tl.max(sources, 0) >= 0:
            left = tl.load(
                features + sources.to(tl.int64)[None, :] * n_in + channels[:, None],
                mask=(sources >= 0)[None, :] & is_channel[:, None],
                other=0.0,
            )
            right = tl.load(
                gradient + targets.to(tl.int64)[:, None] * n_out + columns[None, :],
                mask=(sources >= 0)[:, None] & is_column[None, :],
                other=0.0,
            )
            total = tl.dot(left, right, total, input_precision=PRECISION)
    at = (part * n_weights + weight).to(tl.int64) * n_in
    tl.store(
        result + (at + channels)[:, None] * n_out + columns[None, :],
        total,
        mask=is_channel[:, None] & is_column[None, :],
    )
