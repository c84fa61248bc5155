"""What a gateway says that it has counted and billed, asked for in every way there is."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from tests.acceptance.house import House


@dataclass(frozen=True)
class Round:
    """What three parties say of the same requests."""

    received: int
    billed: int
    served: int

    def __str__(self) -> str:
        return f"received {self.received} <= billed {self.billed} <= served {self.served}"

    def __add__(self, other: Round) -> Round:
        return Round(self.received + other.received, self.billed + other.billed, self.served + other.served)

    @property
    def holds(self) -> bool:
        """SPEC 1: what reached a client is billed, once, and nothing that was not served."""
        return self.received <= self.billed <= self.served

    @property
    def is_equal(self) -> bool:
        return self.received == self.billed == self.served


NOTHING = Round(0, 0, 0)


@dataclass
class Books:
    """Of one gateway that has one service, `api`. Whatever was used since it was asked last is billed when asked."""

    house: House
    path: str = "/api/x"
    _used: int = 0
    _served: int = 0
    _reset_at: float = 0.0
    invoices: list[dict[str, Any]] = field(default_factory=list)

    def used(self) -> int:
        """Billable requests since then, as `usage show` has them."""
        return int(self.house.usage("--service", "api")["billable"]) - self._used

    def settle(self, received: int) -> Round:
        """Close the cycle. `usage show`, `billing show` and the invoice must have counted the same."""
        used = self.used()
        served = self.house.counting.served(self.path) - self._served
        shown = sum(item["requests"] for item in self.house.gatectl.json("billing", "show")["items"])
        time.sleep(max(0.0, self._reset_at + 1 - time.monotonic()))  # a cycle of no whole second cannot be closed
        invoice = self.house.gatectl.json("billing", "reset", "--yes")
        self._reset_at = time.monotonic()
        invoiced = sum(line["requests"] for line in invoice["body"]["lines"])
        assert used == shown == invoiced, f"usage {used}, bill {shown}, invoice {invoice['number']} {invoiced}"
        self._used += used
        self._served += served
        self.invoices.append(invoice)
        return Round(received, used, served)

    def assert_proven(self) -> None:
        """Invoices are numbered without a gap, say what the rollups say, and these what the journal says."""
        numbers = [invoice["number"] for invoice in self.invoices]
        assert numbers == [f"INV-{number:06}" for number in range(1, len(numbers) + 1)]
        for noun in ("billing", "usage"):
            verified = self.house.gatectl.run(noun, "verify")
            assert verified.returncode == 0, verified.stdout + verified.stderr
