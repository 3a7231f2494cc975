"""Names what nothing uses, by vulture; the exit code is 1 where there is something.

Uses that vulture cannot see are told here: names in `module:name` strings, by which registries find things, and those
below, each kind with who uses it. A name that nobody uses any more is deleted, not added.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from vulture import Vulture

ROOT = Path(__file__).parents[1]
FOLDERS = ("platform", "methods", "kernels", "rubrics", "app", "migrations", "benchmarks", "docs", "tests", "scripts")
REGISTERED = re.compile(r"[\w.]+:([A-Za-z_]\w*)")

DECORATORS = [
    *("@pytest.fixture*", "@*.command", "@*.callback", "@event.listens_for", "@*.exception_handler"),
    *("@model_validator", "@schemathesis.*"),
]
"""What registers the function that it decorates."""

NAMES = [
    # Called or read by a library that they are made for: SQLAlchemy, Alembic, pydantic, httpx, http.server, pytest.
    *("impl", "cache_ok", "process_bind_param", "process_result_value", "type_annotation_map"),
    *("down_revision", "branch_labels", "depends_on", "model_config", "handle_async_request", "writelines"),
    *("protocol_version", "log_message", "do_*", "close_connection", "daemon_threads", "allow_reuse_address"),
    *(
        "request_queue_size",
        "handle_error",
        "handleError",
        "client_address",
        "pytestmark",
        "pytest_*",
        "loadscopereorder",
    ),
    # Set on a library's own objects: typer, litellm, PyAV, tokenizers, transformers, inspect, torch, html.parser.
    *("aclient_session", "create_client", "suppress_debug_info", "telemetry", "sample_rate", "pre_tokenizer"),
    *("post_processor", "base_model", "attention_bias", "mlp_bias", "tie_word_embeddings", "__signature__"),
    *("HF_HUB_OFFLINE", "allow_tf32", "handle_starttag", "ignore_unknown_options", "linkname", "should_exit"),
    # Parameters of a name that a protocol asks for.
    *("cursor", "warmup"),
    # Programs of pyproject.toml.
    "submit_model",
    # Values that are written on the command line or in the data, and looked up by what is written.
    *("TURNS", "SPEAKER", "BH", "FLOAT16", "INFERENCE_MEMORY", "INSTRUCTION_RETENTION", "SELF_COHERENCE"),
    "VOICE_EDITING",
    # Fields of rows that are written whole, as JSON, CSV or into the store.
    *("ars_min", "ars_max", "vote_agreement_low", "vote_agreement_high", "vote_kappa", "baseline_arm", "p50"),
    *("met_text", "met_audio", "median_s", "replies_done", "replies_planned", "failed_calls"),
    *("takes_models", "largest_upload", "longest_recording", "writing_s", "training_s", "tau_low", "tau_high"),
    *("full_prefill_bytes", "full_prefill_flops", "torch_version", "request_bytes"),
    # Part of what a checkpoint holds, or of what a layer is.
    *("t2d", "key_value_heads"),
    # Called by the name that a parameter of a test brings.
    *("voxtral", "recurrent"),
]


def registered(source: str) -> Iterator[str]:
    """The names in the `module:name` strings of a file."""
    for node in ast.walk(ast.parse(source)):
        text = node.value if isinstance(node, ast.Constant) else None
        if isinstance(text, str) and (found := REGISTERED.fullmatch(text)):
            yield found[1]


def main() -> int:
    """Look through the whole repository."""
    files = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py") if ".cache" not in path.parts]
    names = {name for path in files for name in registered(path.read_text(encoding="utf-8"))}
    vulture = Vulture(ignore_names=[*NAMES, *names], ignore_decorators=DECORATORS)
    vulture.scavenge([str(path) for path in files])
    # The columns of a table are used by being there.
    tables = ROOT / "platform" / "vivace" / "store" / "tables"
    suspected = vulture.get_unused_code(min_confidence=60)
    unused = [item for item in suspected if tables not in Path(item.filename).parents]
    for item in unused:
        print(item.get_report().replace(f"{ROOT}/", ""))
    return 1 if unused else 0


if __name__ == "__main__":
    sys.exit(main())
