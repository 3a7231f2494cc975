"""Where Vivace keeps things and reads its settings: the home folder, the database URL, the lease."""

from __future__ import annotations

from pathlib import Path

from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Settings from `VIVACE_*` variables or `.env`; a command's flags override them.

    Keys of model providers are not settings: adapters read them from the environment when they call.
    """

    model_config = SettingsConfigDict(env_prefix="VIVACE_", env_file=".env", extra="ignore")

    home: Path = Path(".vivace")
    database: str | None = None
    lease_seconds: float = 15.0
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
    """Settings with a command's `--home` and `--database` laid over environment and `.env`."""
    given = {"home": home, "database": database}
    return Settings(**{key: value for key, value in given.items() if value is not None})  # type: ignore[arg-type]
