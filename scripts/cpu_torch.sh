#!/bin/sh
# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

# Installs the PyTorch that a few tests compare with, where pip would take a build without CUDA (the default registry's
# for Linux has it: gigabytes). Usage: cpu_torch.sh PYTHON
python=$1
torch=torch==2.13.0
left_out() {
    echo "PyTorch is left out, and the tests that use it skip: $1; choose a build with make test TORCH='torch==...'"
    exit 0
}
# pip's report as JSON on standard input; fails where a package of CUDA is among those to be installed.
without_cuda='import json, sys
names = [package["metadata"]["name"].lower() for package in json.load(sys.stdin)["install"]]
sys.exit(any(name.startswith(("nvidia", "cuda", "triton")) for name in names))'

report=$("$python" -m pip install --dry-run --quiet --report - "$torch" 2>/dev/null) || left_out "pip finds no $torch"
printf '%s' "$report" | "$python" -c "$without_cuda" || left_out "pip would take a $torch with CUDA"
exec "$python" -m pip install -q "$torch"
