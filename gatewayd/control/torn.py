"""Torn slots: which of a segment's are to be passed over.

A slot with a wrong checksum is a record in the making while its writer lives and has not gone past it. Otherwise it is
torn: it is passed over and counted, never silently, and what stands behind it counts. So are slots that a power cut has
emptied in the middle.
"""

from __future__ import annotations

from gatewayd.control.batches import batch_of
from gatewayd.control.segments import Reader
from gatewayd.records import SLOT_BYTES


def torn_after(reader: Reader, taken: int, data: bytes) -> int:
    """How many slots after those taken are torn, to be passed over."""
    slot = data[taken : taken + SLOT_BYTES]
    if data and not slot:  # there was no room for more
        return 0
    at = reader.position + taken
    if not slot.strip(b"\0"):  # the end, unless its writer is gone and something stands behind
        return reader.empty_slots() if not taken and reader.writer_gone() else 0
    if not reader.writer_gone() and not _has_passed(data, taken):
        return 0
    # Nobody writes there any more: if the slot is whole on a second look, it was in the making at the first.
    return 0 if batch_of(reader.slot(at)).data else 1


def _has_passed(data: bytes, damaged: int) -> bool:
    """The writer has stored a whole record behind this slot, before any that is empty."""
    for offset in range(damaged + SLOT_BYTES, len(data), SLOT_BYTES):
        slot = data[offset : offset + SLOT_BYTES]
        if not slot.strip(b"\0"):
            return False
        if batch_of(slot).data:
            return True
    return False
