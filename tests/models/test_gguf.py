"""GGUF checkpoints: turned once into plain ones, whole or not at all, and refused in a sentence."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip("gguf", reason="gguf is not installed")
torch = pytest.importorskip("torch")

from support.gguf_files import CHAT_TEMPLATE, write_gguf  # noqa: E402
from vivace.errors import UsageError  # noqa: E402
from vivace.machine import optional_packages  # noqa: E402
from vivace.models.adapters.local import LocalModel  # noqa: E402
from vivace.models.client.calls import ChatOptions  # noqa: E402
from vivace.models.local import gguf as reading  # noqa: E402
from vivace.models.local.spoken_model import SpokenModel  # noqa: E402
from vivace.tracks.efficiency.measured_models import MeasuredModel, find_target, loaded  # noqa: E402


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.gguf"
    write_gguf(path)
    return path


@pytest.fixture
def turned_here(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Files are turned inside this process, which has torch already; lists them."""
    turned: list[Path] = []

    def turn(path: Path, folder: Path) -> None:
        turned.append(path)
        reading.turn(path, folder)

    monkeypatch.setattr(reading, "_turn_apart", turn)
    return turned


def found(path: Path, home: Path) -> MeasuredModel:
    return find_target(f"local:{path}", None, home)


def fetched(path: Path, home: Path) -> Path:
    checkpoint = found(path, home).checkpoint
    assert checkpoint is not None
    return checkpoint.fetched()


def test_the_weights_are_those_of_the_file_and_the_tokenizer_comes_along(tmp_path: Path, turned_here: list) -> None:
    held = write_gguf(tmp_path / "tiny.gguf")
    folder = fetched(tmp_path / "tiny.gguf", tmp_path / "home")
    model, tokenizer = loaded(folder, None, None, dtype="float32", device="cpu", seed=1)
    weights = model.state_dict()
    for ours, theirs in (("embed_tokens", "token_embd"), ("layers.1.mlp.up_proj", "blk.1.ffn_up")):
        expected = torch.from_numpy(held[theirs]).to(torch.bfloat16).float()
        assert torch.equal(weights[f"model.{ours}.weight"], expected)
    assert len({name for name, weight in weights.items() if weight.dtype == torch.float32}) == len(weights)
    assert tokenizer.decode(tokenizer("hehe")["input_ids"]) == "hehe" and len(tokenizer("hehe")["input_ids"]) == 2
    assert tokenizer.chat_template == CHAT_TEMPLATE
    assert not (folder / "tiny.gguf").exists() and "quantization_config" not in json.loads(
        (folder / "config.json").read_text()
    )


def test_it_is_turned_once_also_by_two_at_once_and_by_another_name(
    file: Path, tmp_path: Path, turned_here: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "home"
    with ThreadPoolExecutor(2) as pool:
        folders = list(pool.map(lambda _: fetched(file, home), range(2)))
    assert len(turned_here) == 1 and len({*folders, fetched(file, home)}) == 1
    assert "once" in capsys.readouterr().err
    identity = found(file, home).identity({})
    copy = tmp_path / "elsewhere" / "tiny.BIN"
    copy.parent.mkdir()
    copy.write_bytes(file.read_bytes())
    assert found(copy, home).identity({}).fingerprint == identity.fingerprint
    assert fetched(copy, home) == folders[0] and len(turned_here) == 1
    write_gguf(file, seed=1)
    assert found(file, home).identity({}).fingerprint != identity.fingerprint


@pytest.mark.parametrize("damage", ["cut", "gone", "unsealed"])
def test_a_damaged_one_is_made_anew(
    damage: str, file: Path, tmp_path: Path, turned_here: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = fetched(file, tmp_path / "home")
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    if damage == "cut":
        weights.write_bytes(whole[:100])
    else:
        (folder / ("config.json" if damage == "gone" else reading.SEAL)).unlink()
    capsys.readouterr()
    assert fetched(file, tmp_path / "home") == folder and weights.read_bytes() == whole and len(turned_here) == 2
    assert "is not whole" in capsys.readouterr().err


def test_what_cannot_be_turned_is_told_in_a_sentence_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    strange = tmp_path / "strange.gguf"
    write_gguf(strange, architecture="nobody-knows")
    assert reading.main(str(strange), str(tmp_path / "out")) == 1
    assert "nobody-knows" in json.loads(capsys.readouterr().out.splitlines()[-1])["fault"]
    monkeypatch.setattr(
        reading, "CONVERTER", ["/bin/sh", "-c", """echo '{"fault": "unknown nobody-knows"}'; exit 1"""]
    )
    with pytest.raises(
        UsageError, match=r"cannot read the GGUF checkpoint '.*strange\.gguf': unknown nobody-knows\.$"
    ):
        fetched(strange, tmp_path / "home")
    assert [path.name for path in (tmp_path / "home" / "checkpoints").iterdir() if path.is_dir()] == []
    (tmp_path / "text.gguf").write_text("This is no checkpoint.")
    with pytest.raises(UsageError, match="is no GGUF checkpoint"):
        found(tmp_path / "text.gguf", tmp_path / "home")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("block_count", 2**31 - 1, "2,147,483,647 layers, and it holds 20 tensors"),
        ("feed_forward_length", 2**30, "206,158,"),
        ("embedding_length", 2**20, "bits"),
    ],
)
def test_a_header_that_promises_more_than_the_file_holds_is_refused_before_room_is_made(
    key: str, value: int, said: str, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It took all memory, and hours, to make layers for which there are no weights."""
    content = bytearray(file.read_bytes())
    place = content.index(f"llama.{key}".encode()) + len(f"llama.{key}") + 4
    content[place : place + 4] = value.to_bytes(4, "little")
    file.write_bytes(content)
    assert reading.main(str(file), str(tmp_path / "out")) == 1
    fault = json.loads(capsys.readouterr().out.splitlines()[-1])["fault"]
    assert fault.startswith("its header speaks of") and said in fault


def test_missing_readers_are_asked_for_and_not_needed_once_it_is_turned(
    file: Path, tmp_path: Path, turned_here: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched(file, tmp_path / "home")
    monkeypatch.setattr(optional_packages, "find_spec", lambda name: None if name == "gguf" else object())
    fetched(file, tmp_path / "home")
    with pytest.raises(UsageError, match=r"pip install 'vivace\[packaged\]'"):
        fetched(file, tmp_path / "another")


@pytest.mark.full
def test_a_process_of_its_own_turns_it(file: Path, tmp_path: Path) -> None:
    assert (fetched(file, tmp_path / "home") / "model.safetensors").is_file()


def test_on_the_dialogue_track_it_answers_what_is_written(
    file: Path, tmp_path: Path, turned_here: list[Path]
) -> None:
    model = LocalModel(str(file), {"device": "cpu", "max_new_tokens": 4}, ChatOptions(), home=tmp_path / "home")
    moved = tmp_path / "elsewhere.gguf"
    moved.write_bytes(file.read_bytes())
    again = LocalModel(str(moved), {"device": "cpu", "max_new_tokens": 4}, ChatOptions(), home=tmp_path / "home")
    assert model.identity.fingerprint == again.identity.fingerprint, "it is known by its content"
    spoken = SpokenModel({"folder": str(model._fetched()), "batch": 1, **model._setup})
    turns = [
        {"audio": None, "text": text, "assistant": answer} for text, answer in (("Hello", "Yes."), ("Why", None))
    ]
    answer = spoken.answer({"turns": turns, "timeout_s": 60.0})
    assert not spoken.hears and answer["output_tokens"] in range(1, 5) and turned_here == [file]
