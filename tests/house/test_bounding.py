"""A chat template that loops or grows ends in a sentence, in bounded time and memory."""

from __future__ import annotations

import resource
import signal
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from vivace.machine.bounds import UnboundedError, bounded
from vivace.tracks.efficiency.session.token_prompts import token_ids
from vivace_methods.protocol import MethodError


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "does not end within"),
        ("{{ 'a' * 10000000000 }}", "GiB of memory"),
    ],
)
def test_a_template_is_stopped(template: str, words: str) -> None:
    jinja2 = pytest.importorskip("jinja2")
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    assert jinja2
    before, limits = signal.getsignal(signal.SIGVTALRM), resource.getrlimit(resource.RLIMIT_AS)
    with pytest.raises(UnboundedError, match=words), bounded(0.05, 2**28):
        ImmutableSandboxedEnvironment().from_string(template).render()
    assert signal.getsignal(signal.SIGVTALRM) is before
    assert resource.getrlimit(resource.RLIMIT_AS) == limits


def test_a_model_whose_template_fails_is_refused() -> None:
    class Tokenizer:
        chat_template = "x"

        def apply_chat_template(self, *_: Any, **__: Any) -> str:
            raise UnboundedError("it does not end within 20 s")

    with pytest.raises(MethodError, match=r"chat template cannot be used .*does not end within 20 s"):
        token_ids("Hello", Tokenizer())


def test_in_another_thread_it_ends_as_well() -> None:
    """Commands prepare runs in threads, where there are no signals: a sound template was refused for it."""
    jinja2 = pytest.importorskip("jinja2")

    def render(written: str) -> str:
        with bounded(0.05 if "for" in written else 20.0):
            return str(jinja2.Template(written).render())

    endless = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(render, "a").result() == "a"
        with pytest.raises(UnboundedError, match="does not end within"):
            pool.submit(render, endless).result()
        assert pool.submit(render, "b").result() == "b"
