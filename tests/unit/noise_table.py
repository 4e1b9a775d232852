# SPDX-License-Identifier: Apache-2.0
"""A table of noise floors that never changes, for tests of what follows from it."""

from __future__ import annotations

from testbed.judge import noise

FLOOR = noise.Floor(
    scenario="crawl",
    machine="2 CPUs",
    figure="hogs.work",
    unit="iterations/s",
    runs={"global_fifo": 20},
    noisiest="global_fifo",
    shares={1: 0.06, 3: 0.04, 9: 0.02},
    finds=9,
)
TABLE = noise.Noise.model_validate(
    {
        "schema": "testbed.noise/1",
        "image": "0" * 64,
        "kernel": "7.3",
        "qemu": "10.0",
        "icount_shift": 2,
        "parallel_quantum": 2500,
        "date": "2026-11-24",
        "command": "benchmarks/noise_floor.py",
        "floors": (
            FLOOR,
            FLOOR.model_copy(update={"figure": "forks.forks", "shares": {1: 0.1, 3: 0.05}, "unit": "forks/s"}),
            FLOOR.model_copy(update={"scenario": "starvation", "shares": {1: 0.08, 3: 0.03}}),
        ),
    }
)
