"""`gatectl audit`: who changed what, and when."""

from gatectl import paging
from gatectl.grammar import Call, noun
from gatectl.output import Column

COLUMNS = (
    Column("at", "time"),
    Column("actor"),
    Column("action"),
    Column("tenant"),
    Column("subject"),
    Column("id", wide=True),
    Column("before", wide=True),
    Column("after", wide=True),
)


def list_(call: Call, limit: paging.Limit = 100, after: paging.After = None, every: paging.All = False) -> None:
    """List changes, the newest first; of one tenant with --tenant."""
    paging.show_list(call, "/v1/audit", COLUMNS, limit, after, every)


command = noun(
    "audit",
    "Who changed what, and when.",
    {"list": (list_, ["gatectl audit list --limit 20", "gatectl audit list -t acme -o ndjson --all"])},
)
