"""Decisions, pure: who may pass, where to, how often, at what price. No sockets, no files, no clock: `now` is given."""
