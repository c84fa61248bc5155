"""What a process holds, from /proc."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from tests.bench.cpu import cpu_us

MIB = 1 << 20


@dataclass(frozen=True)
class Process:
    """A process that is looked at from outside."""

    pid: int

    def __str__(self) -> str:
        return f"pid {self.pid}: {self.resident() / MIB:.1f} MiB, {self.descriptors()} descriptors"

    def resident(self) -> int:
        """Bytes of memory that it has now."""
        return self._status("VmRSS")

    def anonymous(self) -> int:
        """The same without what is mapped from files, such as the journal."""
        return self._status("RssAnon")

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def cpu_us(self) -> int:
        return cpu_us([self.pid])

    def _status(self, name: str) -> int:
        found = re.search(rf"^{name}:\s+(\d+) kB$", Path(f"/proc/{self.pid}/status").read_text(), re.MULTILINE)
        assert found is not None, name
        return int(found[1]) << 10
