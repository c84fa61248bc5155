"""Backups: fetched from a gateway that goes on, and put back where none runs."""
