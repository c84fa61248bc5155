"""One file a noun, one function a verb; each ends with the table of its verbs.

No `from __future__ import annotations` here: typer reads the annotations at every start, and evaluating them from
strings would double what that costs.
"""
