"""gatewayd side by side with nginx: CPU a request, requests a second, latency.

    python -m tests.bench [--cases default|all|NAME,...] [--only nginx] [--rounds 3] [--json FILE]

One worker of each on one core; wrk, the upstream (another nginx), and gatewayd's supervisor and control on a second.
In each round every subject gets the same load in turn, after a warm-up. CPU is what /proc/PID/stat says of the worker,
over the requests that wrk saw answered. The figures of two machines cannot be compared; their ratios can.

gatewayd is measured from source and, where `make compiled` has built it, compiled.

nginx is the bare proxy: a map of keys, limit_req with a limit that is never reached, upstream keep-alive, and no access
log unless --nginx-log. gatewayd does all of its work: key, bucket, quota, journal, headers.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.bench import cpu, load, report, subjects
from tests.bench.cases import CASES, Case, chosen
from tests.bench.report import Measurement
from tests.bench.subjects import COMPILED, SYNCED, TWO_WORKERS, UNRECORDED, Subject
from tests.daemons import DaemonError, ends_on_signals

SUBJECTS = ("direct", "nginx", "gatewayd", COMPILED)
WARM_UP_CONNECTIONS = 32  # per run at most as many requests are given up at its end


def main() -> int:
    options = _options()
    try:
        cases, cores = chosen(options.cases), _cores(options.cores)
        names = tuple(options.only.split(",")) if options.only else SUBJECTS
        if unknown := set(names) - set(SUBJECTS):
            raise ValueError(f"--only {unknown.pop()}: choose among {', '.join(SUBJECTS)}")
        if missing := [tool for tool in ("wrk", "nginx", "taskset") if shutil.which(tool) is None]:
            raise ValueError(f"{' and '.join(missing)} not found; apt-get install wrk nginx util-linux")
        if COMPILED in names and not subjects.compiled_copy_is_current():
            if options.only:
                raise ValueError("--only compiled: there is no compiled copy; run make compiled")
            names = SUBJECTS[:-1]
    except (ValueError, DaemonError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    try:
        with ends_on_signals():
            _bench(options, cases, names, cores)
    except (DaemonError, OSError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=(__doc__ or "").split("\n")[0])
    names = ", ".join(case.name for case in CASES)
    parser.add_argument("--cases", default="default", help=f"default, all, or some of: {names}")
    parser.add_argument("--only", help=f"only some of the subjects {', '.join(SUBJECTS)}")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=8, help="of one measurement")
    parser.add_argument("--warm-up", type=int, default=2, help="seconds before it")
    parser.add_argument("--cores", help="PROXY,LOAD[,SECOND PROXY]; the first that this process may use")
    parser.add_argument("--nginx-log", action="store_true", help="nginx writes an access log, buffered")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    return parser.parse_args()


def _cores(given: str | None) -> tuple[int, ...]:
    usable = sorted(os.sched_getaffinity(0))
    wanted = [int(core) for core in given.split(",")] if given else usable[:3]
    if len(wanted) not in (2, 3) or len(set(wanted)) != len(wanted) or not set(wanted) <= set(usable):
        raise ValueError(f"two or three different cores are needed, of those that may be used: {usable}")
    return tuple(wanted)


def _bench(options: argparse.Namespace, cases: Sequence[Case], names: tuple[str, ...], cores: tuple[int, ...]) -> None:
    if "gatewayd" in names and any(case.scales for case in cases):
        names = (*names, TWO_WORKERS)
    if "gatewayd" in names and any(case.journal for case in cases):
        names = (*names, UNRECORDED, *SYNCED)
    environment = _environment(options, cores)
    print(
        "\n".join(f"{name}: {value}" for name, value in environment.items()), "", report.HEADING, sep="\n", flush=True
    )
    measured = []
    with tempfile.TemporaryDirectory(prefix="gatewayd-bench-") as folder:
        root = Path(folder)
        with subjects.running(names, root, cores, nginx_log=options.nginx_log) as running:
            for measurement in _measurements(options, cases, running, cores[1], root):
                measured.append(measurement)
                print(report.row(measurement), flush=True)
            counted = [
                subjects.check_usage(s, 2 * options.rounds * len(cases) * WARM_UP_CONNECTIONS)
                for s in running
                if s.gatectl and s.records
            ]
    found = [report.ratios(case, measured) for case in cases]
    lines = [line for case, ratios in zip(cases, found, strict=True) for line in report.summary(case, ratios)]
    lines += [line for case in cases for line in report.disturbed(case, measured)]
    if len(cores) == 2:
        lines += [f"{case.name:<15} {report.SHARED_CORE}" for case in cases if case.scales]
    print("", *lines, *counted, sep="\n")
    if options.json:
        options.json.write_text(json.dumps(report.as_json(environment, measured, found), indent=2) + "\n")


def _measurements(
    options: argparse.Namespace, cases: Sequence[Case], running: Sequence[Subject], load_core: int, folder: Path
) -> Iterator[Measurement]:
    """Every case, every round, every subject: in turn, so that a machine that slows down slows all alike."""
    for case in cases:
        for number in range(1, options.rounds + 1):
            for subject in running:
                if _takes_part(subject, case):
                    yield _measure(options, case, number, subject, load_core, folder)


def _takes_part(subject: Subject, case: Case) -> bool:
    if case.scales:
        return subject.gatectl is not None and subject.name != COMPILED
    if case.journal:
        return subject.name in ("gatewayd", UNRECORDED, *SYNCED)
    return subject.name not in (TWO_WORKERS, UNRECORDED, *SYNCED) and (bool(subject.workers) or case.direct)


def _measure(
    options: argparse.Namespace, case: Case, number: int, subject: Subject, load_core: int, folder: Path
) -> Measurement:
    key = {"good": subject.key, "limited": subject.limited_key, "unknown": "nobody's"}[case.key]
    cpu.settle([*subject.workers, *subject.control])
    warm_up = load.run(case, subject.url, key, options.warm_up, load_core, folder)
    cpu.settle(subject.control)
    worker_before, control_before = cpu.cpu_us(subject.workers), cpu.cpu_us(subject.control)
    result = load.run(case, subject.url, key, options.seconds, load_core, folder)
    worker_us = cpu.cpu_us(subject.workers) - worker_before
    cpu.settle(subject.control)
    control_us = cpu.cpu_us(subject.control) - control_before
    if case.websocket:
        subject.given += 2 * case.connections  # a tunnel is one request, however much passes through it
    elif case.status < 400:
        subject.given += warm_up.requests + result.requests
    return Measurement(
        case.name,
        number,
        subject.name,
        result.requests,
        round(result.per_second, 1),
        result.p50_us / 1000,
        result.p99_us / 1000,
        round(worker_us / result.requests, 2),
        round(control_us / result.requests, 2),
        round(worker_us / 1e6 / result.seconds, 3),
    )


def _environment(options: argparse.Namespace, cores: tuple[int, ...]) -> dict[str, Any]:
    nginx = subprocess.run(["nginx", "-v"], capture_output=True, text=True).stderr.strip()
    log = "buffered" if options.nginx_log else "off"
    return {
        "date": dt.datetime.now(dt.UTC).strftime("%Y-%m-%d"),
        "machine": f"{_cpu_model()}, {os.cpu_count()} cores, Linux {platform.release()}",
        "python": platform.python_version(),
        "cores": f"worker on {cores[0]}; wrk, upstream, supervisor and control on {cores[1]}",
        "nginx": f"{nginx.rpartition('/')[2]}, key map and limit_req, access_log {log}",
        "load": f"wrk, 1 thread, {options.seconds:g} s after {options.warm_up:g} s, {options.rounds} rounds",
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


if __name__ == "__main__":
    sys.exit(main())
