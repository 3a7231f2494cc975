"""Health for anybody, without a path in it; figures for the operator alone."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from api.conftest import Guest
from vivace.api.faults import told
from vivace.settings import Settings
from vivace.store.database import Database


def test_health_is_told_to_anybody_and_figures_to_the_operator(
    guest: Guest, database: Database, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    nobody, reader, operator = guest(None), guest("reader", "read"), guest("operator", "admin")
    assert nobody("GET", "/health/live").json() == {"status": "ok"}
    assert nobody("GET", "/health/ready").json() == {"status": "ok"}
    assert nobody("GET", "/metrics").status_code == 401
    assert reader("GET", "/metrics").status_code == 403
    shown = operator("GET", "/metrics")
    assert shown.status_code == 200
    assert "vivace_database_up 1.0" in shown.text

    with database.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    refused = nobody("GET", "/health/ready")
    assert refused.status_code == 503
    assert refused.json()["detail"] == "It is not ready; the operator's log says why.", "not where what lies"
    assert "install the newer Vivace" in caplog.text
    assert told("Nothing answers at http://10.0.0.5:8000/v1 (ftp://a@b).", settings) == (
        "Nothing answers at [address] ([address])."
    )
    assert nobody("GET", "/health/live").status_code == 200
