"""Damaged messages through the real protocol classes, without sockets: thousands of them a second.

    python -m tests.fuzz --seconds 30

`memory` is the loop and the transports, `judge` what must hold whatever comes, `damage` what comes.
"""
