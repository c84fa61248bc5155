"""Help as it is told: plain text in sections, the examples last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import typer
from typer.core import TyperGroup

from gatectl.colours import bold
from gatectl.groups import GLANCE, REST, group_of, in_order
from gatectl.shared_options import SHARED_PANEL


class HelpText(typer.Context.formatter_class):  # type: ignore[misc, valid-type]
    """Plain help without boxes: what typer draws with rich leaves half of 80 columns for the text, and costs 5 more
    times `python -c pass`."""

    def write_heading(self, heading: str) -> None:
        self.write(f"{'':>{self.current_indent}}{bold(heading)}\n")


class Helpful:
    """Help in sections: what it does, usage, own options, shared options, examples (the epilog, a line each)."""

    params: list[Any]
    epilog: str | None

    def format_options(self, ctx: Any, formatter: Any) -> None:
        if isinstance(self, TyperGroup):
            self.format_commands(ctx, formatter)
        for title, params in self.help_sections().items():
            records = [
                (param.metavar, param.help) if param.param_type_name == "argument" else param.get_help_record(ctx)
                for param in params
            ]
            with formatter.section(title):
                formatter.write_dl([record for record in records if record])

    def help_sections(self) -> Mapping[str, Sequence[Any]]:
        """Arguments and options by the headings that help has them under."""
        shown = [param for param in self.params if not getattr(param, "hidden", False)]
        arguments = [param for param in shown if param.param_type_name == "argument"]
        own = [param for param in shown if param not in arguments and param.rich_help_panel != SHARED_PANEL]
        found: dict[str, list[Any]] = {}
        for param in own:
            usual = group_of(param.opts[0]) if len(own) > GLANCE else REST
            found.setdefault(param.rich_help_panel or usual, []).append(param)
        return {
            **({"Arguments": arguments} if arguments else {}),
            **{heading: found[heading] for heading in in_order(found)},
            SHARED_PANEL: [param for param in shown if param.rich_help_panel == SHARED_PANEL],
        }

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        if not self.epilog:
            return
        with formatter.section("Examples"):
            for line in self.epilog.strip().splitlines():
                formatter.write(f"  {line.strip()}\n")
