"""Kinds of upstreams: in TLS, behind a name, on a Unix socket, and what a pool makes of them."""
