"""Alembic migrations, run by `control.database.migrate` at start. `HEAD` there names the newest of them."""
