"""The API keeps to its own description, whatever is sent: schemathesis makes requests of it."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from schemathesis.checks import CHECKS

from api.conftest import Guest
from vivace.api.door import Door

LEFT_OUT = {
    "positive_data_acceptance",  # outputs that were never uploaded are in order, and are refused
    "unsupported_method",  # tried in the other storm
    "ensure_resource_availability",
    "use_after_free",
}


@schemathesis.serializer("application/x-ndjson")
def _lines(_context: Any, value: Any) -> bytes:
    """Whatever the description lets through as JSON lines, as it stands."""
    return str(value).encode("utf-8", "replace")


def _keeps_to_its_description(guest: Guest, count: int) -> None:
    alice = guest("alice", "admin", "submit", "read")
    schema = schemathesis.openapi.from_asgi("/openapi.json", alice.http.app)
    checks = [check for check in CHECKS.get_all() if check.__name__ not in LEFT_OUT]
    for found in schema.get_all_operations():
        operation = found.ok()

        @examples(max_examples=count, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy())
        def ask(case: Any) -> None:
            case.call_and_validate(headers={"Authorization": f"Bearer {alice.token}"}, checks=checks)

        ask()


def test_answers_are_as_the_description_says(guest: Guest) -> None:
    _keeps_to_its_description(guest, 6)


@pytest.mark.full
def test_answers_are_as_the_description_says_for_long(guest: Guest, door: Door) -> None:
    _keeps_to_its_description(guest, 200)
