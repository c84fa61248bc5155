"""The bench's own arithmetic and reading; what it measures is not a test."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.bench import cpu, load, report, websocket
from tests.bench.cases import BROWSER_HEADERS, CASES, chosen
from tests.bench.load import Load
from tests.bench.report import Measurement
from tests.daemons import ROOT, DaemonError

_MEASURED = Measurement("get-1k", 1, "nginx", 1000, 100.0, 0.5, 1.0, 20.0, 0.0, 0.9)


def test_cases_are_chosen_by_name() -> None:
    assert chosen("all") == CASES
    assert [case.name for case in chosen("default")] == ["get-1k", "one-connection", "journal", "get-1k-varied"]
    assert [case.name for case in chosen("post-1k,get-16k")] == ["post-1k", "get-16k"]
    with pytest.raises(ValueError, match="no case is called 'get-2k'"):
        chosen("get-2k")
    assert len(BROWSER_HEADERS) == 14, "fifteen with the key"


def test_wrk_reports_one_line() -> None:
    line = 'RESULT {"requests": 40, "seconds": 2.0, "p50_us": 500, "p99_us": 900, "refused": 1, "broken": 0}'
    assert load.parse(f"Running 2s test\n{line}\n") == Load(40, 2.0, 500, 900, 1, 0)
    assert load.parse(line).per_second == 20
    with pytest.raises(DaemonError, match="wrk reported nothing: unable to connect"):
        load.parse("unable to connect")


def test_cpu_time_of_this_process_grows_with_work() -> None:
    before, until = cpu.cpu_us([os.getpid()]), time.process_time() + 0.1
    while time.process_time() < until:
        pass
    assert 60_000 <= cpu.cpu_us([os.getpid()]) - before <= 5_000_000


def test_cpu_time_reads_past_an_odd_process_name(tmp_path: Path) -> None:
    odd = tmp_path / "a) b (c"
    odd.symlink_to(shutil.which("sleep") or "/bin/sleep")
    with subprocess.Popen([odd, "30"]) as process:
        try:
            assert 0 <= cpu.cpu_us([process.pid]) < 1_000_000
        finally:
            process.terminate()


def test_ratios_are_medians_of_each_rounds_own() -> None:
    measured = []
    for number, (ours, its) in enumerate([(30.0, 20.0), (64.0, 40.0), (90.0, 45.0)], 1):
        measured.append(replace(_MEASURED, round=number, cpu_us=its))
        measured.append(replace(_MEASURED, round=number, subject="gatewayd", cpu_us=ours, control_us=its, p50_ms=0.75))
        measured.append(replace(_MEASURED, round=number, subject="direct", p50_ms=0.25))
    found = report.ratios(CASES[0], measured)
    assert (found.cpu, found.cpu_with_control) == (1.6, 2.6)
    assert (found.added_ms_gatewayd, found.added_ms_nginx) == (0.5, 0.25)
    assert any("1.60 (bar 2.0, 1.35 wanted: met)" in line for line in report.summary(CASES[0], found))


def test_a_run_without_a_core_of_its_own_is_named() -> None:
    runs = [_MEASURED, replace(_MEASURED, round=2, busy=0.6)]
    assert [line.rpartition(": ")[2] for line in report.disturbed(CASES[0], runs)] == ["nginx in round 2"]
    assert report.disturbed(replace(CASES[0], connections=1), runs) == []


def test_a_second_worker_is_compared_with_the_first() -> None:
    one = replace(_MEASURED, case="two-workers", subject="gatewayd", cpu_us=40.0)
    two = replace(one, subject="two workers", per_second=185.0, cpu_us=42.0)
    [case] = chosen("two-workers")
    found = report.ratios(case, [one, two])
    assert (found.workers_per_second, found.workers_cpu) == (1.85, 1.05)
    assert report.summary(case, found) == ["two-workers     two workers to one: requests/s 1.85, CPU a request 1.05"]


def test_the_journal_is_compared_with_none_and_with_those_that_are_synced() -> None:
    ours = replace(_MEASURED, case="journal", subject="gatewayd", cpu_us=30.0)
    others = [("no journal", 28.5, 110.0, 0.4), ("synced 2/s", 33.0, 90.0, 0.5), ("synced each", 45.0, 50.0, 1.5)]
    measured = [ours] + [
        replace(ours, subject=name, cpu_us=cpu, per_second=per_second, p50_ms=p50)
        for name, cpu, per_second, p50 in others
    ]
    [case] = chosen("journal")
    assert report.summary(case, report.ratios(case, measured)) == [
        "journal         the journal: 1.5 µs a request (bar 3.0: met)",
        "journal         journal_sync second to process: CPU 1.10, requests/s 0.90, median latency 1.00",
        "journal         journal_sync record to process: CPU 1.50, requests/s 0.50, median latency 3.00",
    ]


def test_the_websocket_load_counts_what_comes_back(tmp_path: Path) -> None:
    [case] = chosen("websocket")
    core = min(os.sched_getaffinity(0))
    if shutil.which("taskset") is None:
        pytest.skip("taskset is not on PATH: install util-linux to run this test")
    with websocket.upstream(tmp_path, core) as port:
        result = load.run(case, f"http://127.0.0.1:{port}", None, 1, core, tmp_path)
    assert (result.refused, result.broken) == (0, 0)
    assert result.requests > 100
    assert 0 < result.p50_us <= result.p99_us


def test_without_gatewayd_there_is_no_ratio() -> None:
    found = report.ratios(CASES[0], [_MEASURED])
    assert found.cpu is None
    assert report.summary(CASES[0], found) == []


def test_a_missing_tool_is_one_line(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "tests.bench"], cwd=ROOT, env={"PATH": str(tmp_path)}, capture_output=True, text=True
    )
    assert run.returncode == 1
    assert run.stderr == "bench: wrk and nginx and taskset not found; apt-get install wrk nginx util-linux\n"
