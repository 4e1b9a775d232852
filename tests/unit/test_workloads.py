# SPDX-License-Identifier: Apache-2.0
"""What schbench and hackbench print, ours and the original ones, as figures."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.judge.workloads import measurements
from tests.unit import case_builder

# As the original prints it: tables on stderr, percentiles without counts in JSON, both into one log.
TABLES = """\
Wakeup Latencies percentiles (usec) runtime 3 (s) (2067 total samples)
\t  50.0th: 2          (251 samples)
\t  90.0th: 557        (782 samples)
\t* 99.0th: 737        (186 samples)
\t  99.9th: 2484       (17 samples)
\t  min=1, max=3254
Request Latencies percentiles (usec) runtime 3 (s) (2101 total samples)
\t  50.0th: 3156       (251 samples)
\t  90.0th: 6000       (782 samples)
\t* 99.0th: 9184       (186 samples)
\t  99.9th: 12000      (17 samples)
\t  min=900, max=13107
RPS percentiles (requests) runtime 3 (s) (4 total samples)
\t  20.0th: 690        (1 samples)
\t* 50.0th: 700        (2 samples)
\t  90.0th: 710        (1 samples)
\t  min=690, max=711
average rps: 700.33
sched delay: message 0 (usec) worker 0 (usec)
"""
JSON = json.dumps(
    {
        "normal": {"version": "7.3.4", "hostname": "(none)", "sched_ext": "enabled", "cmdline": "schbench -j -"},
        "int": {
            "time": 1,
            "wakeup_latency_pct50.0": 2,
            "wakeup_latency_pct99.0": 737,
            "wakeup_latency_pct99.9": 2484,
            "wakeup_latency_min": 1,
            "wakeup_latency_max": 3254,
            "request_latency_pct99.0": 9184,
            "rps_pct50.0": 700,
            "runtime": 3,
        },
    }
)


def figures(output: str) -> dict[str, tuple[float, int, str]]:
    return {one.name: (one.value, one.samples, one.unit) for one in measurements("schbench", "s", output)}


@pytest.mark.parametrize("output", [TABLES, TABLES + JSON + "\n", JSON + "\n" + TABLES])
def test_the_original_schbench_is_understood(output: str) -> None:
    found = figures(output)
    assert found["s.wakeup_latency.p99"] == (737, 2067, "us")
    assert found["s.wakeup_latency.p99.9"] == (2484, 2067, "us")
    assert found["s.wakeup_latency.max"] == (3254, 2067, "us")
    assert found["s.request_latency.p99"] == (9184, 2101, "us")
    assert found["s.rps.p50"] == (700, 4, "1/s")
    assert found["s.rps.avg"] == (700.33, 1, "1/s")


def test_json_without_tables_has_figures_without_counts() -> None:
    assert figures(JSON)["s.wakeup_latency.p99"] == (737, 0, "us")


def test_the_last_block_counts() -> None:
    later = TABLES.replace("737 ", "800 ").replace("2067", "9000")
    assert figures(TABLES + later)["s.wakeup_latency.p99"] == (800, 9000, "us")


def test_the_format_of_2016_is_another_benchmark() -> None:
    assert figures("Latency percentiles (usec)\n\t50.0th: 5\n\t*99.0th: 90\n\tmin=0, max=100\n") == {}


def test_our_own_counts_come_with_the_figures() -> None:
    found = figures(case_builder.SCHBENCH)
    assert found["s.wakeup_latency.p99"] == (40, 9000, "us")
    assert found["s.rps.p50"] == (900, 40, "1/s")


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e400", "1" * 400, "true", '"7"', "null", "[1]"])
def test_what_is_no_number_is_no_figure(value: str) -> None:
    assert figures(f'{{"int": {{"wakeup_latency_pct99.0": {value}, "wakeup_latency_samples": {value}}}}}') == {}


@given(st.text(max_size=300))
def test_no_text_is_anything_but_figures_or_nothing(text: str) -> None:
    for output in (text, TABLES + text, text + JSON):
        for one in measurements("schbench", "s", output):
            assert one.value >= 0 or "{" in text
