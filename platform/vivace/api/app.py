"""The application: its addresses, its bounds, and its faults."""

from __future__ import annotations

import importlib
import pkgutil

from fastapi import FastAPI
from starlette.middleware import Middleware

from vivace import __version__
from vivace.api import routes
from vivace.api.access import House
from vivace.api.bounds import LARGEST_REQUEST, Bounded
from vivace.api.door import Door
from vivace.api.faults import handle
from vivace.api.rates import Rates
from vivace.settings import Settings
from vivace.store.database import Database

UPLOADS = "/v1/uploads"


def make_app(settings: Settings, database: Database, door: Door) -> FastAPI:
    """The API over a database.

    Args:
        settings: where things are.
        database: open for writing.
        door: what is open to strangers.
    """
    limits = door.limits

    def most(path: str) -> int:
        return int(limits.upload_mb * 2**20) if path == UPLOADS else LARGEST_REQUEST

    app = FastAPI(
        title="Vivace",
        version=__version__,
        description="Submissions to a leaderboard of spoken-dialogue models.",
        docs_url=None,  # a page that would load scripts of somebody else's
        redoc_url=None,
        redirect_slashes=False,
        middleware=[Middleware(Bounded, most=most)],
    )
    app.state.house = House(
        settings, database, door, Rates(limits.requests_per_minute), Rates(limits.refusals_per_minute)
    )
    handle(app, settings)
    for found in pkgutil.iter_modules(routes.__path__, f"{routes.__name__}."):
        app.include_router(importlib.import_module(found.name).router)
    return app
