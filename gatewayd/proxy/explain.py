"""The worker's side of `explain`: it is asked what would become of a request (`what_if`), or became of one (`recall`).

A what-if may lack what a request would lack, a key or a token, and then waits for control as a request would.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from gatewayd.channel import Explained, Finding, Found, FromWorker, Inquiry, Recall, WhatIf
from gatewayd.proxy.recall import tell_kept
from gatewayd.proxy.what_if import Judgement, Trial

if TYPE_CHECKING:
    from gatewayd.proxy.worker import Worker

log = logging.getLogger(__name__)


class Explainer:
    """Answers WhatIf and Recall; holds the judgements that wait for control."""

    def __init__(self, worker: Worker, send: Callable[[FromWorker], None]) -> None:
        self._worker = worker
        self._send = send
        self._waiting: dict[int, Judgement] = {}

    def __repr__(self) -> str:
        return f"<Explainer {len(self._waiting)} waiting>"

    def asked(self, message: WhatIf) -> None:
        self._go_on(message.ask, Trial(self._worker, message).judge(), None)

    def found(self, message: Finding) -> None:
        judgement = self._waiting.pop(message.ask, None)
        if judgement is not None:
            self._go_on(message.ask, judgement, message.answer)

    def recall(self, message: Recall) -> None:
        worker = self._worker
        kept = worker.recent.find(message.request_id.encode("utf-8", "replace"))
        told = None
        if kept is not None:
            try:
                told = tell_kept(kept, worker.snapshot.services, worker.slot)
            except Exception:  # a mistake in here must not cost the worker its link
                log.exception("what became of a request could not be told")
        self._send(Explained(message.ask, told))

    def reconnected(self) -> None:
        """Whoever had asked is gone."""
        self._waiting.clear()

    def _go_on(self, ask: int, judgement: Judgement, answer: Found | None) -> None:
        try:
            # Not `next` for the first step: send(None) is the same, and one call serves all.
            question = judgement.send(answer)  # type: ignore[arg-type]
        except StopIteration as ended:
            self._send(Explained(ask, ended.value))
        except Exception:  # a mistake in here must not cost the worker its link
            log.exception("a what-if could not be told")
            self._send(Explained(ask, None))
        else:
            self._waiting[ask] = judgement
            self._send(Inquiry(ask, question))
