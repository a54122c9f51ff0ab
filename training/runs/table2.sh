#!/usr/bin/env bash
# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

# The rows of the paper's Table 2 at the size of a CPU: the same rooms, steps and seed for each; evaluated on rooms and,
# where CACHE has the split `house` (benchmarks/training_house.py), on homes that none of them saw. Row 6 is row 5 with
# the box filter, which the others are evaluated without. What is done is kept: the same command goes on.
#
#   training/runs/table2.sh CACHE FEATURES OUT      EPOCHS=8 SEED=1 THREADS=1 ROWS="none image object both modulation filter"
# More EPOCHS than before go on from where the rows stand, at the rate that the longer schedule has there.
set -euo pipefail
CACHE=$(realpath "$1") FEATURES=$2 OUT=$(realpath -m "$3")
cd "$(dirname "$0")/../.."
EPOCHS=${EPOCHS:-8} SEED=${SEED:-1} THREADS=${THREADS:-1} ROWS=${ROWS:-none image object both modulation filter}
PYTHON=${PYTHON:-.venv/bin/python}
export MALLOC_MMAP_THRESHOLD_=${MALLOC_MMAP_THRESHOLD_:-1000000000} MALLOC_TRIM_THRESHOLD_=${MALLOC_TRIM_THRESHOLD_:-2000000000}

for row in $ROWS; do
  image=true object=true modulation=false filter=false
  case $row in
    none) image=false object=false ;;
    image) object=false ;;
    object) image=false ;;
    both) ;;
    modulation) modulation=true ;;
    filter) modulation=true filter=true ;;
    *) echo "no row $row: none, image, object, both, modulation, filter" >&2; exit 1 ;;
  esac
  run="$OUT/$row-$SEED"
  [ "$row" = filter ] && run="$OUT/modulation-$SEED"
  "$PYTHON" -m training.train --recipe small --resume --out "$run" --set "data.root=$CACHE" --set "data.features=$FEATURES" \
    --set "model.image_features=$image" --set "model.object_queries=$object" --set "model.box_modulation=$modulation" \
    --set segmentation.box_filter=false --set "run.epochs=$EPOCHS" --set "run.seed=$SEED" --set "run.threads=$THREADS" \
    --set run.device=cpu --set run.evaluate_every=0 --set run.picture_every=0
  for split in val house; do
    [ -f "$CACHE/splits/$split.txt" ] || continue
    [ "$OUT/results/$row-$SEED-$split/results.json" -nt "$run/last.json" ] && continue
    "$PYTHON" -m training.evaluate "$run" --split "$split" --out "$OUT/results/$row-$SEED-$split" \
      --set "segmentation.box_filter=$filter" --set "run.threads=$THREADS"
  done
done
