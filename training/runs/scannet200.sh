#!/usr/bin/env bash
# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

# SegDINO3D on ScanNet200 (ScanNet v2: scannetv2.sh). The release trains for 129 epochs, the paper says 88:
# RECIPE=scannet200 or scannet200-paper.
#
#   training/runs/scannet200.sh CACHE FEATURES OUT [--set NAME=VALUE ...]
#
# CACHE: made by `python -m training.prepare scenes`. FEATURES: a name below CACHE/features, or a folder of published
# files. BACKBONE: a file to start from (the published training starts from Mask3D's backbone). GPUS: processes on this
# machine; the published batch is 4 in all, so data.batch_size times GPUS should be 4. Several machines: set TORCHRUN.
set -euo pipefail
cd "$(dirname "$0")/../.."
[ $# -ge 3 ] || { sed -n 2,9p "$0" >&2; exit 2; }
CACHE=$1 FEATURES=$2 OUT=$3
shift 3
GPUS=${GPUS:-1}
TORCHRUN=${TORCHRUN:-torchrun --standalone --nproc-per-node $GPUS}

$TORCHRUN -m training.train --recipe "${RECIPE:-scannet200}" --resume --out "$OUT" \
  --set "data.root=$CACHE" --set "data.features=$FEATURES" --set "data.batch_size=$((GPUS < 4 ? 4 / GPUS : 1))" \
  ${BACKBONE:+--set "model.start_backbone=$BACKBONE"} "$@"
python -m training.evaluate "$OUT" --out "$OUT/result"
