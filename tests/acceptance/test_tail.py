"""`gatectl usage tail` beside a gateway that works, and one that stops."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time

from tests.acceptance.conftest import NewHouse


def test_requests_are_seen_as_they_come_until_the_gateway_stops(new_house: NewHouse) -> None:
    """One who tails does not keep the gateway from stopping, be it one who no longer reads."""
    house = new_house(workers=1)
    house.service("api", "--auth", "none")
    argv = [*house.gatectl.argv, "usage", "tail", "--lines", "1", "-o", "json"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    assert house.call("/api/x").status == 200
    reading = subprocess.Popen(argv, env=house.gatectl.environment, **pipes)  # type: ignore[call-overload]
    stopped = subprocess.Popen(argv, env=house.gatectl.environment, **pipes)  # type: ignore[call-overload]
    try:
        # The first is of the past, or comes late: either way it comes, and then all that follow.
        paths = [json.loads(tail.stdout.readline())["service"] for tail in (reading, stopped)]
        assert paths == ["api", "api"]
        os.kill(stopped.pid, signal.SIGSTOP)
        answer = house.call("/api/y")
        line = json.loads(reading.stdout.readline())
        assert line["request_id"] == answer.headers["x-request-id"][:16]
        assert (line["status"], line["bytes_out"]) == (200, len(answer.body))
        began = time.monotonic()
        os.kill(house.supervisor, signal.SIGTERM)
        out, err = reading.communicate(timeout=30)
        assert (reading.returncode, out) == (6, b"")
        assert err.startswith(b"gatectl: the gateway is stopping")
        assert house.gateway.daemon.process.wait(30) == 0
        assert time.monotonic() - began < 25
    finally:
        for tail in (reading, stopped):
            tail.kill()
            tail.communicate()
    assert "Traceback" not in house.gateway.daemon.output()
