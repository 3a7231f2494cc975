"""Where Vivace keeps things and reads its settings: the home folder, the database URL, the lease."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from vivace.errors import UsageError
from vivace.files.paths import sqlite_url, with_homes
from vivace.output.secrets import masked


def _with_homes(path: Path) -> Path:
    return Path(with_homes(str(path)))


def _pinned(text: str) -> str:
    for each in text.split(","):
        if each.strip() and not _PINNED.fullmatch(each.strip()):
            raise ValueError("write OWNER/NAME@COMMIT, with all 40 digits of the commit, and a comma between two")
    return text


_PINNED = re.compile(r"[\w-][\w.-]*/[\w.-]+@[0-9a-f]{40}")


class Settings(BaseSettings):
    """Settings from `VIVACE_*` variables or `.env`; a command's flags override them.

    Keys of model providers are not settings: adapters read them from the environment when they call.
    """

    model_config = SettingsConfigDict(env_prefix="VIVACE_", env_file=".env", env_ignore_empty=True, extra="ignore")

    home: Annotated[Path, AfterValidator(_with_homes)] = Path(".vivace")
    database: str | None = None
    lease_seconds: float = Field(default=15.0, ge=1.0, allow_inf_nan=False)
    """How long a run stays its worker's own after the worker's last sign of life."""
    artifacts: str | None = None
    """Where files are stored by their hash: a folder, or a URL such as `s3://BUCKET/PREFIX`."""
    artifacts_cache_gb: float = Field(default=20.0, gt=0, allow_inf_nan=False)
    """Gibibytes that the home folder may hold of artifacts that lie elsewhere."""
    trust_remote_code: Annotated[str, AfterValidator(_pinned)] = ""
    """Models of the hub, `OWNER/NAME@COMMIT`, whose own code the operator lets run; a comma between two."""
    show_private: bool = False
    """Whether the leaderboard shows private runs and hidden items to people who have not logged in."""
    login: Path | None = None
    """A file in Streamlit's form that says where people log in to the leaderboard; None where nobody does."""
    smtp: str | None = None
    """The mail server of alerts, `smtp://HOST:PORT` or `smtps://USER:PASSWORD@HOST`; read, and never stored."""
    smtp_from: str | None = None
    """The sender of alerts."""

    @property
    def trusted_models(self) -> frozenset[str]:
        """Models, each at one commit, whose own code may be run on this machine."""
        return frozenset(each.strip() for each in self.trust_remote_code.split(",") if each.strip())

    @property
    def database_url(self) -> str:
        """The SQLAlchemy URL: the one given, else SQLite in the home folder."""
        if self.database:
            return normalised_url(self.database)
        return sqlite_url(self.home / "vivace.db")

    @property
    def database_name(self) -> str:
        """The database as a message names it: the file, or the URL without its password."""
        if not self.database:
            return str(self.home / "vivace.db")
        return masked(self.database)

    @property
    def artifacts_folder(self) -> Path | None:
        """The folder of files stored by the hash of their bytes; None where they lie behind a URL."""
        if self.artifacts is None:
            return self.home / "artifacts"
        if self.artifacts.startswith("file://"):
            return Path(self.artifacts.removeprefix("file://"))
        return None if "://" in self.artifacts else Path(with_homes(self.artifacts))


_CONNECTION_STRING = re.compile(
    r"(^|[\s;])(host|hostaddr|port|dbname|user|password|passfile|service|sslmode|options|dsn|driver|server|uid|pwd"
    r"|database|data source|user id)\s*=",
    re.IGNORECASE,
)
"""libpq's, and ODBC's, which would be a file that is named after its password."""
_SCHEME = re.compile(r"(postgres(ql)?|sqlite3?|mysql|mariadb|mssql|oracle|jdbc|file|https?)(\+\w+)?:", re.IGNORECASE)


def normalised_url(url: str) -> str:
    """A database URL as people write it (`postgres://…`, a bare file path) in SQLAlchemy's form.

    Raises:
        UsageError: it is neither a URL nor a path.
    """
    url = url.strip()
    scheme, separator, rest = url.partition("://")
    if separator and scheme.lower() in ("postgres", "postgresql"):
        return f"postgresql+psycopg://{rest}"
    if separator and scheme.lower() == "sqlite":
        return f"sqlite://{rest[:1]}{with_homes(rest[1:])}"
    if separator:
        return url
    is_other = _CONNECTION_STRING.search(url) or _SCHEME.match(url) or url == ":memory:"
    if is_other and not Path(url).exists():
        raise UsageError(
            "The database is neither a path nor a URL that Vivace reads; write it as FILE, sqlite:///FILE or "
            "postgresql://USER@HOST/NAME."
        )
    return sqlite_url(Path(with_homes(url)))


def load_settings(home: Path | None = None, database: str | None = None, artifacts: str | None = None) -> Settings:
    """Settings with a command's `--home`, `--database` and `--artifacts` laid over environment and `.env`.

    Raises:
        UsageError: a variable holds what it cannot, or `.env` cannot be read.
    """
    given = {"home": home, "database": database, "artifacts": artifacts}
    try:
        return Settings(**{key: value for key, value in given.items() if value is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        fault = error.errors()[0]
        variable = f"VIVACE_{fault['loc'][0]}".upper()
        raise UsageError(f"{variable} cannot be {fault['input']!r}: {fault['msg']}.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"The file '.env' cannot be read ({error}); mend it or move it away.") from error
