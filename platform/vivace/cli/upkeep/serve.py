"""`vivace serve`: show the results database in a browser, on this machine unless told otherwise."""

from __future__ import annotations

import errno
import os
import socket
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from vivace.cli.common import DatabaseOption, HomeOption, say, settings_of


def serve(
    home: HomeOption = None,
    database: DatabaseOption = None,
    port: Annotated[int, typer.Option("--port", envvar="VIVACE_PORT", min=1, max=65535, help="Port.")] = 8501,
    host: Annotated[
        str,
        typer.Option("--host", envvar="VIVACE_HOST", help="Address to listen on; 0.0.0.0 lets other machines in."),
    ] = "127.0.0.1",
    show_private: Annotated[
        bool,
        typer.Option(
            "--show-private", help="Show private runs and hidden items to whoever reaches the page without a login."
        ),
    ] = False,
    login: Annotated[
        Path | None,
        typer.Option(
            "--login",
            envvar="VIVACE_LOGIN",
            help="A TOML file that says where people log in, to see their own private runs.",
        ),
    ] = None,
) -> None:
    """Show the leaderboard in a browser until Ctrl-C. An empty board is fine; nothing is ever written.

    Private runs and the items of hidden sets are left out, unless --show-private is given.
    """
    from vivace.store.migrate import open_for_reading

    settings = settings_of(home, database)
    found = open_for_reading(settings)
    if found is not None:
        found.close()
    if login is not None:
        check_login(login, show_private or settings.show_private)
    check_address(host, port)
    shown = f"[{host}]" if ":" in host else host
    say(f"The leaderboard is at http://{shown}:{port} — Ctrl-C ends it.")
    # The server takes this process's place: signals reach it directly and nothing can outlive the command.
    # Its talk goes to stderr, for stdout is data.
    os.dup2(2, 1)
    environment = {
        **os.environ,
        "VIVACE_HOME": str(settings.home.absolute()),
        "VIVACE_DATABASE": settings.database_url,
        "VIVACE_SHOW_PRIVATE": str(int(show_private or settings.show_private)),
        "VIVACE_LOGIN": "" if login is None else str(login.absolute()),
    }
    os.execve(sys.executable, command(host, port, login), environment)


def command(host: str, port: int, login: Path | None = None) -> list[str]:
    """The command line that serves the leaderboard's pages, with the file that says where people log in, if any."""
    package = find_spec("vivace_app")
    assert package is not None and package.origin is not None
    options = {
        "server.address": host,
        "server.port": str(port),
        "server.headless": "true",
        "server.fileWatcherType": "none",
        "browser.gatherUsageStats": "false",
        "client.toolbarMode": "minimal",
        "client.showErrorDetails": "none",
        "logger.hideWelcomeMessage": "true",
        "logger.level": "warning",
        **({} if login is None else {"secrets.files": str(login.absolute())}),
    }
    return [
        *(sys.executable, "-m", "streamlit", "run", str(Path(package.origin).with_name("main.py"))),
        *(f"--{name}={value}" for name, value in options.items()),
    ]


LOGIN_KEYS = ("redirect_uri", "cookie_secret", "client_id", "client_secret", "server_metadata_url")
"""What the file of --login says under `[auth]`."""
SHORTEST_SECRET = 32
"""Characters of the secret that signs the cookie of whoever has logged in."""


def check_login(path: Path, show_private: bool) -> None:
    """Refuse a file that nobody could log in with, before the server starts and the first person meets it.

    Raises:
        UsageError: it cannot be read, lacks something, or would hide nothing.
    """
    import tomllib

    from vivace.errors import UsageError
    from vivace.files.text import read_text

    if show_private:
        raise UsageError("--show-private shows everything to everybody, and --login would hide nothing: take one.")
    try:
        told = tomllib.loads(read_text(path, "login file")).get("auth")
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"The login file '{path}' is not TOML ({error}).") from error
    auth = told if isinstance(told, dict) else {}
    absent = [key for key in LOGIN_KEYS if not (isinstance(auth.get(key), str) and auth[key].strip())]
    if absent:
        raise UsageError(f"The login file '{path}' lacks {', '.join(absent)} under [auth].")
    if len(auth["cookie_secret"]) < SHORTEST_SECRET:
        raise UsageError(
            f"The cookie_secret in '{path}' has less than {SHORTEST_SECRET} characters: make a longer one."
        )
    if not auth["redirect_uri"].endswith("/oauth2callback"):
        raise UsageError(f"The redirect_uri in '{path}' has to be the leaderboard's address with /oauth2callback.")
    if find_spec("authlib") is None:
        raise UsageError("--login needs Authlib: `pip install 'vivace[login]'`.")


def check_address(host: str, port: int) -> None:
    """Refuse an address that cannot be listened on, before the server starts and says it in its own words.

    Raises:
        UsageError: the port is in use or not allowed, or the host is not an address of this machine.
    """
    from vivace.errors import UsageError

    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen()
    except PermissionError as error:
        raise UsageError(f"Port {port} needs rights that you do not have; give another with --port.") from error
    except (socket.gaierror, UnicodeError) as error:
        raise UsageError(f"'{host}' is not an address of this machine; give another with --host.") from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UsageError(
                f"Port {port} on {host} is in use; stop what listens there or give another with --port."
            ) from error
        raise UsageError(
            f"Nothing can listen on {host} port {port} ({error.strerror}); give another --host or --port."
        ) from error
