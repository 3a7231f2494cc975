"""The settings of a run in words, as far as they can tell it from other runs of a model of the same name."""

from __future__ import annotations

import json
from typing import Any

from vivace.output.short_names import bare_address
from vivace.store.tables import Model, Run


def settings_of(model: Model, run: Run) -> dict[str, str]:
    """Setting → its value as text, those that were not given left out; an address without what may be a secret."""
    told: dict[str, Any] = {
        **({"replies": model.fingerprint[:6]} if model.recorded else {"model": model.target}),
        "method": run.method or "none",
        "server": "the provider's" if model.address is None else bare_address(model.address),
        **model.parameters,
        "input": run.input_form,
        "output": run.output_form,
        "repeats": run.repeats,
    }
    return {key: _text(value) for key, value in told.items()}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
