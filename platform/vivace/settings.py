"""Where Vivace keeps things and reads its settings: the home folder, the database URL, the lease."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from vivace.errors import UsageError


class Settings(BaseSettings):
    """Settings from `VIVACE_*` variables or `.env`; a command's flags override them.

    Keys of model providers are not settings: adapters read them from the environment when they call.
    """

    model_config = SettingsConfigDict(env_prefix="VIVACE_", env_file=".env", env_ignore_empty=True, extra="ignore")

    home: Path = Path(".vivace")
    database: str | None = None
    lease_seconds: float = Field(default=15.0, ge=1.0, allow_inf_nan=False)
    """How long a run stays its worker's own after the worker's last sign of life."""

    @property
    def database_url(self) -> str:
        """The SQLAlchemy URL: the one given, else SQLite in the home folder."""
        if self.database:
            return normalised_url(self.database)
        return f"sqlite:///{(self.home / 'vivace.db').absolute()}"

    @property
    def artifacts(self) -> Path:
        """The folder of files stored by the hash of their bytes."""
        return self.home / "artifacts"


def normalised_url(url: str) -> str:
    """A database URL as people write it (`postgres://…`, a bare file path) in SQLAlchemy's form."""
    for prefix in ("postgres://", "postgresql://"):
        if url.startswith(prefix):
            return "postgresql+psycopg://" + url.removeprefix(prefix)
    if "://" not in url:
        return f"sqlite:///{Path(url).absolute()}"
    return url


def load_settings(home: Path | None = None, database: str | None = None) -> Settings:
    """Settings with a command's `--home` and `--database` laid over environment and `.env`.

    Raises:
        UsageError: a variable holds what it cannot, or `.env` cannot be read.
    """
    given = {"home": home, "database": database}
    try:
        return Settings(**{key: value for key, value in given.items() if value is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        fault = error.errors()[0]
        variable = f"VIVACE_{fault['loc'][0]}".upper()
        raise UsageError(f"{variable} cannot be {fault['input']!r}: {fault['msg']}.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"The file '.env' cannot be read ({error}); mend it or move it away.") from error
