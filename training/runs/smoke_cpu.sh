#!/usr/bin/env bash
# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

# The whole story on a CPU, in minutes: generated rooms in ScanNet's formats, prepared, a small network trained on them
# and evaluated on rooms that it never saw. What a step has made is kept: the same command goes on.
#
#   training/runs/smoke_cpu.sh [FOLDER]      TRAIN=16 VAL=4 EPOCHS=16 THREADS=2 FEATURES=mobile_sam
set -euo pipefail
cd "$(dirname "$0")/../.."

OUT=${1:-out/smoke}
TRAIN=${TRAIN:-16} VAL=${VAL:-4} EPOCHS=${EPOCHS:-16} THREADS=${THREADS:-0}
FRAMES=${FRAMES:-6} WIDTH=${WIDTH:-320} HEIGHT=${HEIGHT:-240}
if [ -z "${PYTHON:-}" ]; then
  PYTHON=python3
  [ -x .venv/bin/python ] && PYTHON=.venv/bin/python
fi
# MobileSAM where its weights are (`seg3d models fetch mobile_sam`), else colours alone; FEATURES= says so too.
if [ -z "${FEATURES+set}" ]; then
  FEATURES=
  "$PYTHON" -c "from seg3d_core.perception.weights import find; import sys; sys.exit(find('mobile_sam') is None)" && FEATURES=mobile_sam
fi
# glibc would give the large arrays of each step back, and take them again a step later.
export MALLOC_MMAP_THRESHOLD_=${MALLOC_MMAP_THRESHOLD_:-1000000000} MALLOC_TRIM_THRESHOLD_=${MALLOC_TRIM_THRESHOLD_:-2000000000}

step() { echo; echo "== $* ($(date +%T))"; }

step "rooms: $TRAIN to train on, $VAL to evaluate on"
"$PYTHON" -m training.prepare rooms "$OUT/raw" --train "$TRAIN" --val "$VAL" --frames "$FRAMES" --walk-stride 8 --width "$WIDTH" --height "$HEIGHT"
step "scenes"
"$PYTHON" -m training.prepare scenes "$OUT/raw" "$OUT/cache" --frame-stride 1 --points map --keep-voxel 0.04
TAKES=()
if [ -n "$FEATURES" ]; then
  step "2D features by $FEATURES"
  "$PYTHON" -m training.prepare features "$OUT/raw" "$OUT/cache" --name "$FEATURES" --set "perception.masks=$FEATURES"
  TAKES=(--set "data.features=$FEATURES")
else
  for group in data model; do
    TAKES+=(--set "$group.image_features=false" --set "$group.object_queries=false")
  done
fi
step "training for $EPOCHS epochs"
"$PYTHON" -m training.train --recipe small --resume --out "$OUT/run" --set "data.root=$OUT/cache" "${TAKES[@]}" \
  --set "run.epochs=$EPOCHS" --set run.device=cpu --set "run.threads=$THREADS"
step "evaluation"
"$PYTHON" -m training.evaluate "$OUT/run" --set "run.threads=$THREADS" --out "$OUT/result" --export "$OUT/submission"
step "done: $OUT/run (settings, weights, log, pictures), $OUT/result (tables), $OUT/submission"
