"""The admin API without its socket: a real database, a plane that notes what it is told, and a peer that is root.

Whatever it answers, in any test, is compared with its document.
"""

from __future__ import annotations

import asyncio
import itertools
import shutil
import time
from collections.abc import Collection, Coroutine, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from gatewayd.control.admin.app import build_app
from gatewayd.control.admin.peer import Peer
from gatewayd.control.admin.state import ControlState, JournalView, LoadView, TargetView, WorkerView
from gatewayd.control.database import Database
from gatewayd.control.pressure import Pressure
from gatewayd.settings import Settings
from gatewayd.told import Told
from tests.control.conformance import check_answer

_numbers = itertools.count(1)


@dataclass
class FakePlane:
    """Notes what was published: "snapshot", "caught up", or public ids."""

    told: list[Any] = field(default_factory=list)
    state: str = "serving"
    tells: Told | None = None
    target_views: list[TargetView] = field(default_factory=list)
    counted: dict[int, tuple[float, int]] = field(default_factory=dict)
    load_view: LoadView = field(default_factory=LoadView)
    pressed: dict[int, Pressure] = field(default_factory=dict)
    until_ns: int = 0
    ends: dict[str, int] = field(default_factory=dict)
    journal_view: JournalView = field(default_factory=lambda: JournalView(segments=1, torn=0, full=False))

    async def publish_snapshot(self) -> None:
        self.told.append("snapshot")

    async def publish_keys(self, public_ids: Sequence[str] | None) -> None:
        self.told.append(public_ids)

    def alert_added(self) -> None:
        self.told.append("alert added")

    def alert_removed(self, alert_id: int) -> None:
        self.told.append(("alert removed", alert_id))

    async def catch_up(self) -> None:
        self.told.append("caught up")

    async def what_if(self, head: bytes, address: str, public_id: str | None, secret: bytes | None) -> Told | None:
        self.told.append((head, address, public_id, secret))
        return self.tells

    async def recall(self, request_id: str) -> Told | None:
        self.told.append(request_id)
        return self.tells

    def journals_held(self) -> AbstractContextManager[None]:
        self.told.append("held")
        return nullcontext()

    def keep_losses(self) -> None:
        self.told.append("losses kept")

    def workers(self) -> list[WorkerView]:
        return [WorkerView(0, 4242, self.state, 7, 1, 2, 3, journal_full=False)]

    def journal(self) -> JournalView:
        return self.journal_view

    def quotas(self) -> dict[int, tuple[float, int]]:
        return self.counted

    def targets(self, service_id: int) -> list[TargetView]:
        return self.target_views

    def all_targets(self) -> dict[int, list[TargetView]]:
        return {1: self.target_views} if self.target_views else {}

    def load(self) -> LoadView:
        return self.load_view

    def pressures(self, keys: Collection[int]) -> dict[int, Pressure]:
        return {key: pressure for key, pressure in self.pressed.items() if key in keys}

    def whole_until_ns(self) -> int:
        return self.until_ns or time.time_ns()

    def positions(self, *, to_the_end: bool = False) -> dict[str, int]:
        return self.ends


@dataclass
class AsPeer:
    """An app that believes every request to come from this process."""

    app: ASGIApp
    peer: Peer | None = field(default_factory=lambda: Peer(1, 0, 0))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.peer is not None:
            scope.setdefault("state", {})["peer"] = self.peer
        await self.app(scope, receive, send)


class Calling:
    """What a test says to the admin API, and what it expects of the answer."""

    def __call__(self, method: str, path: str, json: Any = None, **more: Any) -> httpx.Response:
        raise NotImplementedError

    def get(self, path: str, /, **query: Any) -> Any:
        response = self("GET", path, params=query)
        assert response.status_code == 200, response.text
        return response.json()

    def post(self, path: str, /, **body: Any) -> Any:
        response = self("POST", path, body)
        assert response.status_code in (200, 201), response.text
        return response.json()

    def patch(self, path: str, /, **body: Any) -> Any:
        response = self("PATCH", path, body)
        assert response.status_code == 200, response.text
        return response.json()

    def delete(self, path: str) -> Any:
        response = self("DELETE", path)
        assert response.status_code == 200, response.text
        return response.json()

    def refused(self, code: str, method: str, path: str, json: Any = None, **more: Any) -> Any:
        """The problem that the request is answered with; its code must be this one."""
        response = self(method, path, json, **more)
        assert response.headers["content-type"] == "application/problem+json", response.text
        problem = response.json()
        assert problem["code"] == code, problem
        assert problem["status"] == response.status_code
        assert "\n" not in problem["detail"]
        return problem


class Admin(Calling):
    """A client of the admin API that a test can call without awaiting."""

    def __init__(self, control: ControlState, plane: FakePlane) -> None:
        self.control = control
        self.plane = plane
        self.app = AsPeer(build_app(control))
        self.handlers_are_real = True
        self._runner = asyncio.Runner()
        self._client = httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://admin")

    def __call__(self, method: str, path: str, json: Any = None, **more: Any) -> httpx.Response:
        if json is not None:
            more["json"] = json
        response: httpx.Response = self._runner.run(self._client.request(method, path, **more))
        if self.handlers_are_real:
            check_answer(method, response.request.url.path, response)
        return response

    def run(self, awaitable: Coroutine[Any, Any, Any]) -> Any:
        return self._runner.run(awaitable)

    def holder(self, role: str, tenant: str | None = None, **more: Any) -> Holder:
        """Somebody on another machine with a token of this role."""
        made = self.post("/v1/tokens", name=f"{role} {tenant} {next(_numbers)}", role=role, tenant=tenant, **more)
        return Holder(self, made["token"])

    def close(self) -> None:
        self._runner.run(self._client.aclose())
        self._runner.close()


@dataclass
class Holder(Calling):
    """Shows a token, as from another machine."""

    admin: Admin
    token: str

    def __call__(self, method: str, path: str, json: Any = None, **more: Any) -> httpx.Response:
        more.setdefault("headers", {"Authorization": f"Bearer {self.token}"})
        peer, self.admin.app.peer = self.admin.app.peer, None
        try:
            return self.admin(method, path, json, **more)
        finally:
            self.admin.app.peer = peer


@pytest.fixture(scope="session")
def new_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of one that is new: to migrate takes 0.3 s, which hundreds of tests need not wait for."""
    made = Database.open(tmp_path_factory.mktemp("new-database"))
    made.close()
    return made.path


@pytest.fixture
def database(tmp_path: Path, new_database: Path) -> Iterator[Database]:
    (tmp_path / "state").mkdir()
    shutil.copy(new_database, tmp_path / "state")
    opened = Database.open(tmp_path / "state")
    yield opened
    opened.close()


@pytest.fixture
def admin(database: Database, tmp_path: Path) -> Iterator[Admin]:
    plane = FakePlane()
    settings = Settings(state_dir=tmp_path / "state", admin_socket=tmp_path / "admin.sock", workers=1)
    control = ControlState(database, settings, plane, listen="127.0.0.1:8080", started_at=1_788_264_000)
    client = Admin(control, plane)
    yield client
    client.close()
