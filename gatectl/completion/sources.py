"""Where values come from, by their kind: some that are always the same, files, contexts, names that the gateway has.

`make completions` gives every option and argument a kind; a test sees to it that each is one of these.
"""

from __future__ import annotations

# What somebody means most often. Everything else that the grammar takes can still be typed.
FIXED = {
    "moment": ("15m", "1h", "24h", "7d", "30d", "today", "yesterday", "this-month", "last-month"),
    "duration": ("1s", "5s", "30s", "1m", "5m", "1h", "24h", "7d"),
    "expiry": ("24h", "7d", "30d", "90d", "365d"),
    "method": ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"),
    "status": ("2xx", "3xx", "4xx", "5xx", "401", "403", "404", "429", "502", "503", "504"),
}

# What the shell itself knows best.
FILES = ("file", "folder")

# `GET /v1/names` finds these by how they begin, however many there are.
NAMED = ("service", "target", "route", "plan", "key", "client", "alert", "invoice")

# Few enough to be listed: the list, then the fields with the name and with what tells it from others.
LISTED = {
    "tenant": ("/v1/tenants", "slug", "name"),
    "period": ("/v1/billing/cycles", "period", "state"),
    "token": ("/v1/tokens", "name", "role"),
    "revision": ("/v1/config/revisions", "number", "message"),
}
IN_TENANT = ("period",)

# From the file of contexts, without asking anybody.
CONTEXTS = "context"

KINDS = (*FIXED, *FILES, *NAMED, *LISTED, CONTEXTS)
