"""
The last lines of `make test`: which parts were skipped for what this machine lacks, by name, counted.

A test that needs something skips with the reason "PART: what is missing", for example
"containers: no Docker engine answers"; `-p tests.support.skip_report` collects them.
"""

from collections import Counter


class SkipReport:
    def __init__(self):
        self.reasons = Counter()

    def pytest_runtest_logreport(self, report):
        if report.skipped and isinstance(report.longrepr, tuple):
            self.reasons[report.longrepr[2].removeprefix("Skipped: ")] += 1

    def pytest_collectreport(self, report):
        if report.skipped and isinstance(report.longrepr, tuple):
            self.reasons[report.longrepr[2].removeprefix("Skipped: ")] += 1

    def pytest_unconfigure(self):
        if not self.reasons:
            print("skipped for what this machine lacks: nothing")
            return
        print(f"skipped for what this machine lacks: {sum(self.reasons.values())}")
        for reason, count in sorted(self.reasons.items()):
            print(f"  {count} × {reason}")


def pytest_configure(config):
    config.pluginmanager.register(SkipReport(), "skip-report")
