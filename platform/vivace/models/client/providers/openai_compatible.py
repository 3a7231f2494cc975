"""Providers that speak OpenAI's chat completions: where they are, and by which names their keys go.

They are asked directly (see `completions.py`); litellm, which takes seconds to import, is loaded for all others.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from vivace.machine.environment import read_key

OPENAI_ADDRESS = "https://api.openai.com/v1"


@dataclass(frozen=True)
class Provider:
    """A provider as litellm names it; the first environment variable that is set counts."""

    name: str
    address: str | None
    """None where everyone runs a server of their own."""
    key_names: tuple[str, ...]
    address_names: tuple[str, ...] = ()

    @property
    def key(self) -> str | None:
        """The key in the environment.

        Raises:
            UsageError: it cannot be sent.
        """
        return next(filter(None, map(read_key, self.key_names)), None)

    @property
    def address_in_environment(self) -> str | None:
        """An address set in the environment, other than the provider's own."""
        address = os.environ.get(self.address_variable or "", "").strip()
        return address if address and address.rstrip("/") != self.address else None

    @property
    def address_variable(self) -> str | None:
        """The variable that sets an address."""
        return next((name for name in self.address_names if os.environ.get(name)), None)


PROVIDERS = {
    provider.name: provider
    for provider in (
        Provider("openai", OPENAI_ADDRESS, ("OPENAI_API_KEY",), ("OPENAI_BASE_URL", "OPENAI_API_BASE")),
        Provider(
            "openrouter",
            "https://openrouter.ai/api/v1",
            ("OPENROUTER_API_KEY", "OR_API_KEY"),
            ("OPENROUTER_API_BASE",),
        ),
        Provider("hosted_vllm", None, ("HOSTED_VLLM_API_KEY",), ("HOSTED_VLLM_API_BASE",)),
        Provider("custom_openai", None, ("CUSTOM_OPENAI_API_KEY",)),
    )
}
"""Asked directly. A provider whose requests litellm would have to translate does not belong here."""


def split_model(model: str) -> tuple[str | None, str]:
    """`provider/name` as (provider, name); a bare name's provider is None."""
    provider, slash, name = model.partition("/")
    return (provider, name) if slash else (None, model)
