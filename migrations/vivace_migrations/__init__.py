"""Alembic migrations of the results database, run by `vivace db upgrade`."""
