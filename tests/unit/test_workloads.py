# SPDX-License-Identifier: Apache-2.0
"""What schbench (ours and the original one), cyclictest and rt-app print, as figures."""

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


# As `cyclictest --json=/proc/self/fd/1` prints it, beside what it warns of.
CYCLICTEST = """\
WARN: stat /dev/cpu_dma_latency failed: No such file or directory
{
  "file_version": 1,
  "cmdline:": "cyclictest --policy=other --threads=2 --histogram=100 --json=/proc/self/fd/1",
  "num_threads": 2,
  "thread": {
    "0": {
      "histogram": {
        "3": 90,
        "70": 9
      },
      "cycles": 100,
      "min": 3,
      "max": 4700,
      "avg": 56.4,
      "cpu": -1
    },
    "1": {
      "histogram": {
        "3": 100
      },
      "cycles": 100,
      "min": 3,
      "max": 3
    }
  }
}
"""

RT_APP = """\
[rt-app] <notice> pLoad = 100ns
# Policy : SCHED_OTHER priority : 0
#idx    perf    run   period          start             end          rel_st      slack c_duration   c_period     wu_lat
   0     5000     83     4966    15536659070     15536664036             345       3960        500       5000        145
   1    40000     83     4966    15536659070     15536664036             345      11000       4000      16000        145
[rt-app] <notice> [2] Exiting.
   0     5000     83     4966    15536659070     15536664036             345       4500        500       5000        145
   0     5000     77      148    15536688065     15536688213           29340      -4323        500       5000          0
"""


def read(program: str, output: str) -> dict[str, tuple[float, int, str]]:
    return {one.name: (one.value, one.samples, one.unit) for one in measurements(program, "p", output)}


def test_cyclictest_tells_of_all_threads_together() -> None:
    found = read("/usr/bin/cyclictest", CYCLICTEST)
    assert found["p.latency.p50"] == (3, 200, "us")
    assert found["p.latency.p90"] == (3, 200, "us")
    assert found["p.latency.p99"] == (70, 200, "us")
    assert found["p.latency.max"] == (4700, 200, "us")


def test_what_is_beyond_the_histogram_was_as_late_as_the_worst() -> None:
    assert read("cyclictest", CYCLICTEST.replace('"70": 9', '"70": 0'))["p.latency.p99"] == (4700, 200, "us")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"cycles": 100', '"cycles": 0'),
        ('"cycles": 100', '"cycles": 1'),
        ('"max": ', '"max": -'),
        ('"max": ', '"max": 1e999, "avg": '),
        ('"max": 4700', '"max": 2'),
        ('"3": ', '"3": ' + "9" * 5000),
        ('"thread"', '"threads"'),
        ("}\n}", "}"),
    ],
)
def test_threads_that_contradict_themselves_say_nothing(old: str, new: str) -> None:
    one = CYCLICTEST.partition('    "1": {')[0].rstrip().removesuffix(",") + "\n  }\n}\n"
    assert read("cyclictest", one)
    assert all(
        samples <= 100 and value >= 0 for value, samples, _ in read("cyclictest", one.replace(old, new)).values()
    )


def test_rt_app_tells_what_was_missed_and_how_long_the_work_took() -> None:
    found = read("rt-app", RT_APP)
    assert found["p.missed"] == (0.25, 4, "share")
    assert found["p.response.p50"] == (1040, 4, "us")
    assert found["p.response.max"] == (9323, 4, "us")


@pytest.mark.parametrize("slack", ["5001", "9" * 16, "--1", "1.5", "٣"])
def test_a_row_that_can_not_be_is_none(slack: str) -> None:
    assert read("rt-app", RT_APP.replace("3960", slack))["p.missed"] == (1 / 3, 3, "share")


@given(st.text(max_size=300), st.integers(min_value=0, max_value=len(CYCLICTEST)))
def test_a_damaged_log_is_figures_or_nothing(text: str, cut: int) -> None:
    for program, output in (("cyclictest", CYCLICTEST), ("rt-app", RT_APP)):
        for damaged in (text, text + output, output + text, output[:cut] + text + output[cut:]):
            for one in measurements(program, "p", damaged):
                assert 0 <= one.value < 1e16
                assert one.samples > 0
