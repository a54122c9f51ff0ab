# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0
