# SPDX-License-Identifier: Apache-2.0
"""Evidence → Findings → Verdict: a pure function of the case. Knows no VM, no clock and no screen.

`assess` judges one run, `judge` a whole case. One file per family of checks: kernel, liveness, attach, starvation,
idle, progress, share, integrity, benefit.
"""

from testbed.judge.assess import Assessment, assess
from testbed.judge.conclude import JUDGE_VERSION as VERSION
from testbed.judge.conclude import answer, judge, pairs, sealed, verdict_bytes, write_verdict

__all__ = ["VERSION", "Assessment", "answer", "assess", "judge", "pairs", "sealed", "verdict_bytes", "write_verdict"]
