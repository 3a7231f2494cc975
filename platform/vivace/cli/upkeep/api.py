"""`vivace api`: take submissions over HTTP until Ctrl-C."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from vivace.cli.common import (
    ArtifactsOption,
    DatabaseOption,
    HomeOption,
    LogFilesOption,
    LogOption,
    LogSizeOption,
    say,
    settings_of,
)


def api(
    config: Annotated[
        Path | None,
        typer.Option("--config", help="A YAML file: sets, models, limits.", show_default="demo, outputs only"),
    ] = None,
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Port.")] = 8000,
    host: Annotated[
        str, typer.Option("--host", help="Address to listen on; 0.0.0.0 lets other machines in.")
    ] = "127.0.0.1",
    proxy: Annotated[
        str | None,
        typer.Option("--proxy", help="The proxy whose word on addresses counts.", show_default="none"),
    ] = None,
    log: LogOption = None,
    log_size: LogSizeOption = 10,
    log_files: LogFilesOption = 5,
    home: HomeOption = None,
    database: DatabaseOption = None,
    artifacts: ArtifactsOption = None,
) -> None:
    """Take submissions over HTTP.

    They are data: nothing that is sent is executed. Tokens are of `vivace token`. What can be submitted is what the
    configuration opens; without one, recorded replies to the demo set.
    """
    import uvicorn

    from vivace.api.app import make_app
    from vivace.api.bounds import server_options
    from vivace.api.door import read_door
    from vivace.api.rehearsal import rehearse
    from vivace.cli.upkeep.serve import check_address
    from vivace.output.rotation import rotating_log
    from vivace.store.migrate import open_for_writing

    settings = settings_of(home, database, artifacts)
    door = read_door(config)
    options = server_options(proxy)
    rehearse(door, settings)
    opened = open_for_writing(settings)
    check_address(host, port)
    shown = f"[{host}]" if ":" in host else host
    said = f"The API is at http://{shown}:{port}, its description at /openapi.json"
    with ExitStack() as around:
        if log is not None:
            around.enter_context(rotating_log(log, log_size, log_files))(said)
        say(f"{said} — Ctrl-C ends it.")
        uvicorn.run(make_app(settings, opened, door), host=host, port=port, **options)
    opened.close()
