# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""`python -m seg3d_core.cli`, where the command is not on the path."""

from . import main

main()
