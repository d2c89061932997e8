"""Shoppers of the load test on the real system: what they send is understood, and every one of them is answered."""

import json
import subprocess
import sys

from tests.support.system import ROOT

NO_HURRY = "[refused]\nshare = 1.0\n"
"""Speed is none of this test's business, nor whether a busy machine turns somebody away; that all are answered is."""


def test_a_few_seconds_of_shoppers_are_all_answered_and_understood(system, tmp_path):
    objectives, report = tmp_path / "objectives.toml", tmp_path / "load.html"
    objectives.write_text(NO_HURRY)
    command = [sys.executable, "-m", "loadtests.shoppers", "--data", str(system.data), "--shape", "burst"]
    command += ["--minutes", "0.12", "--rate", "6", "--objectives", str(objectives), "--report", str(report)]

    done = subprocess.run(
        [*command, "--host", f"http://127.0.0.1:{system.port}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads(report.with_suffix(".json").read_text())["seen"]["rows"]
    assert {"home", "item", "events"} <= {name for _, name, _ in rows}
    assert all(row["failed"] == {} for _, _, row in rows)
    assert sum(sum(row["levels"].values()) for _, _, row in rows) > 0
