"""What a fake daemon answers to `GET /v1/names`: from the same made-up objects as its lists."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Row = tuple[str, str, str]


def answer(state: Mapping[str, Any], query: Mapping[str, str]) -> dict[str, Any]:
    """Names of what the query asks for that begin as it says."""
    text, limit = query.get("starts_with", ""), int(query["limit"])
    rows = [row for row in _rows(state, query["of"]) if any(part.startswith(text) for part in row[:2] if part)]
    return {"items": [dict(zip(("name", "id", "about"), row, strict=True)) for row in rows[:limit]]}


def _rows(state: Mapping[str, Any], of: str) -> list[Row]:
    match of:
        case "service":
            return [(each["slug"], each["id"], each["targets"][0]) for each in state["services"]]
        case "target":
            return [(url, "", each["slug"]) for each in state["services"] for url in each["targets"]]
        case "route":
            return [(each["name"], each["id"], each["path"]) for each in state["routes"]]
        case "plan":
            return [(each["name"], each["id"], "60 per minute") for each in state["plans"]]
        case "key":
            return [(each["name"], each["prefix"], each["plan"] or "no plan") for each in state["keys"]]
        case "client":
            return [(each["name"], each["id"], "of all keys") for each in state["clients"]]
        case "alert":
            return [("", each["id"], each["url"]) for each in state["alerts"]]
    return [("INV-000001", "", "2026-10, 12.34 USD")]
