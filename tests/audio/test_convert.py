"""Decoding and encoding: what a model is sent is what was recorded."""

from __future__ import annotations

import io
import random
import struct
import wave

import av
import numpy as np
import pytest
import soundfile

from support.datasets import tone
from vivace.audio import convert
from vivace.audio.containers import Container, container
from vivace.audio.convert import (
    MODEL_RATE,
    AudioError,
    DecodedAudio,
    decode,
    encode_wav,
    for_model,
    seconds_of,
    to_mono,
)
from vivace.audio.waveform import waveform


def wav(samples: np.ndarray, rate: int) -> bytes:
    """A 16-bit WAV by another writer."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


def sine(hertz: float, seconds: float, rate: int) -> np.ndarray:
    """A tone at half of full scale."""
    return np.asarray(0.5 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate))


@pytest.mark.parametrize("container", ["WAV", "FLAC", "OGG", "MP3", "AIFF"])
@pytest.mark.parametrize("channels", [1, 2])
def test_every_container_becomes_16_khz_mono_of_the_same_length(container: str, channels: int) -> None:
    sent = for_model(tone(440, seconds=1.0, rate=48_000, channels=channels, container=container), "16k")
    assert sent.container == "wav"
    with wave.open(io.BytesIO(sent.content)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (MODEL_RATE, 1, 2)
        assert abs(file.getnframes() / MODEL_RATE - 1.0) < 0.08  # MP3 pads


def test_16_bit_audio_at_16_khz_goes_through_unchanged() -> None:
    samples = np.random.default_rng(3).integers(-32768, 32768, 4000).astype("<i2")
    sent = for_model(wav(samples, MODEL_RATE), "16k").content
    with wave.open(io.BytesIO(sent)) as file:
        assert np.array_equal(np.frombuffer(file.readframes(4000), "<i2"), samples)


def test_resampling_keeps_what_fits_and_lets_no_alias_through() -> None:
    kept = to_mono(DecodedAudio(sine(3000, 1.0, 48_000)[:, None], 48_000))
    folded = to_mono(DecodedAudio(sine(12_000, 1.0, 48_000)[:, None], 48_000))
    inner = slice(2000, -2000)
    assert np.sqrt(np.mean(kept[inner] ** 2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.01)
    assert np.sqrt(np.mean(folded[inner] ** 2)) < 1e-4


def test_channels_are_averaged() -> None:
    left = sine(440, 0.2, MODEL_RATE)
    assert np.allclose(to_mono(DecodedAudio(np.stack([left, -left], axis=1), MODEL_RATE)), 0)


@pytest.mark.parametrize("container", ["WAV", "MP3"])
def test_original_keeps_the_very_bytes_of_wav_and_mp3(container: str) -> None:
    content = tone(300, container=container, rate=48_000)
    sent = for_model(content, "original")
    assert (sent.content, sent.container) == (content, container.lower())


def test_original_keeps_rate_and_channels_of_other_containers() -> None:
    sent = for_model(tone(300, container="FLAC", rate=48_000, channels=2), "original")
    recording = decode(sent.content)
    assert (sent.container, recording.rate, recording.samples.shape[1]) == ("wav", 48_000, 2)


def test_peaks_beyond_full_scale_are_clipped_not_wrapped() -> None:
    with wave.open(io.BytesIO(encode_wav(np.array([2.0, -2.0]), 8000))) as file:
        assert np.frombuffer(file.readframes(2), "<i2").tolist() == [32767, -32768]


def test_a_wav_that_holds_less_than_its_header_says_is_cut_off() -> None:
    content = tone(300, container="WAV")
    with pytest.raises(AudioError, match="cut off"):
        decode(content[: len(content) // 2])
    assert decode(content[:-8]).seconds == pytest.approx(0.3, abs=0.01)  # a few lost samples are no reason


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFFFFF, 0x80000000])
def test_a_wav_written_to_a_pipe_does_not_know_its_size(size: int) -> None:
    content = bytearray(tone(300, container="WAV"))
    place = content.index(b"data") + 4
    content[place : place + 4] = struct.pack("<I", size)
    assert decode(bytes(content)).seconds == pytest.approx(0.3, abs=0.01)


@pytest.mark.parametrize("container", ["WAV", "FLAC", "OGG", "MP3", "AIFF"])
def test_broken_bytes_are_an_audio_error_or_decode_and_nothing_else(
    container: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Bits flipped in the header, any length cut: never another exception, nor a traceback on the screen."""
    content, generator = tone(300, container=container), random.Random(11)
    broken = [content[:length] for length in range(0, 120, 5)]
    for _ in range(60):
        flipped = bytearray(content)
        flipped[generator.randrange(120)] = generator.randrange(256)
        broken.append(bytes(flipped))
    for candidate in broken:
        try:
            recording = decode(candidate)
        except AudioError as error:
            assert str(error)[0].islower() and "BytesIO" not in str(error)
        else:
            assert len(recording.samples) and np.isfinite(recording.samples).all()
    assert "Traceback" not in capfd.readouterr().err  # libmpg123 has words of its own


def test_samples_that_are_not_numbers_are_refused() -> None:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.array([0.0, np.nan, 0.5]), 16_000, format="WAV", subtype="FLOAT")
    with pytest.raises(AudioError, match="not numbers"):
        decode(buffer.getvalue())


def recording_of(kind: Container, seconds: float = 1.0, **options: str) -> bytes:
    """A tone in a file of this kind, of about so many seconds at 48 kHz."""
    samples = sine(440, seconds, 48_000)
    buffer = io.BytesIO()
    if kind in (Container.M4A, Container.WEBM):
        muxer, codec = {Container.M4A: ("ipod", "aac"), Container.WEBM: ("webm", "libopus")}[kind]
        with av.open(buffer, "w", format=muxer, options=options) as file:
            stream = file.add_stream(codec, rate=48_000, layout="mono")
            frame = av.AudioFrame.from_ndarray(samples[None].astype(np.float32), format="fltp", layout="mono")
            frame.sample_rate = 48_000
            file.mux([*stream.encode(frame), *stream.encode(None)])
    else:
        form, subtype = {Container.OPUS: ("OGG", "OPUS"), Container.OGG: ("OGG", "VORBIS")}.get(
            kind, (kind.upper(), None)
        )
        soundfile.write(buffer, samples, 48_000, format=form, subtype=subtype)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", list(Container))
def test_a_file_is_heard_whole_or_is_a_fault(kind: Container) -> None:
    """One recording in a file, with tags and padding behind it or not; neither two, nor half of one, nor a rest."""
    content = recording_of(kind)
    assert container(content) is kind
    tag = b"TAG" + b"a name".ljust(125, b"\0")
    for whole in (content, content + tag, content + bytes(500)):
        assert decode(whole).seconds == pytest.approx(1.0, abs=0.05)
    for place in (0.4, 0.6, 0.9):
        with pytest.raises(AudioError, match="cut off"):
            decode(content[: int(len(content) * place)])
    with pytest.raises(AudioError, match="left over"):
        decode(content + bytes(range(1, 200)) * 9)
    with pytest.raises(AudioError, match="two recordings are joined"):
        decode(content + recording_of(kind, 0.6))


def test_a_webm_that_a_browser_wrote_is_heard_whole_or_is_a_fault() -> None:
    """Its segment and clusters do not say how long they are."""
    content = recording_of(Container.WEBM, live="1")
    assert decode(content).seconds == pytest.approx(1.0, abs=0.05)
    for cut in (content[: len(content) // 2], content[:-10], content[: len(content) * 9 // 10]):
        with pytest.raises(AudioError, match="cut off"):
            decode(cut)
    with pytest.raises(AudioError, match="left over"):
        decode(content + recording_of(Container.WAV, 0.1))


def test_the_last_packet_of_a_caf_is_no_rest() -> None:
    buffer = io.BytesIO()
    soundfile.write(buffer, sine(440, 1.0, 16_000), 16_000, format="CAF", subtype="ALAC_16")
    with pytest.raises(AudioError, match="cut off"):
        decode(buffer.getvalue()[:-10])


@pytest.mark.parametrize("form", ["WAV", "WAVEX", "RF64", "AIFF", "CAF"])
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
def test_a_header_that_claims_too_little_is_a_fault(form: str, subtype: str) -> None:
    buffer = io.BytesIO()
    soundfile.write(buffer, sine(440, 0.5, 8_000), 8_000, format=form, subtype=subtype)
    content = bytearray(buffer.getvalue())
    assert decode(bytes(content)).seconds == 0.5
    place = 28 if form == "RF64" else content.index(b"SSND" if form == "AIFF" else b"data") + 4
    width, order = {"RF64": (8, "<Q"), "AIFF": (4, ">I"), "CAF": (8, ">Q")}.get(form, (4, "<I"))
    content[place : place + width] = struct.pack(order, 1_200)
    with pytest.raises(AudioError, match="left over"):
        decode(bytes(content))


def test_a_flac_whose_header_claims_another_length_is_a_fault() -> None:
    content = bytearray(tone(300, container="FLAC"))
    packed = int.from_bytes(content[21:26], "big")
    for told, what in ((3_000, "3,000 samples, and the file holds 7,200"), (9_000, "cut off")):
        content[21:26] = (packed >> 36 << 36 | told).to_bytes(5, "big")
        with pytest.raises(AudioError, match=what):
            decode(bytes(content))


def test_what_was_written_to_a_pipe_is_heard_whole_though_it_says_no_length() -> None:
    flac, wave_file = bytearray(tone(300, container="FLAC")), bytearray(tone(300, container="WAV"))
    flac[21:26] = (int.from_bytes(flac[21:26], "big") >> 36 << 36).to_bytes(5, "big")
    place = wave_file.index(b"data") + 4
    wave_file[place : place + 4] = bytes(4)
    assert decode(bytes(flac)).seconds == decode(bytes(wave_file)).seconds == pytest.approx(0.3)
    sent = for_model(bytes(wave_file), "original").content
    with wave.open(io.BytesIO(sent)) as file:
        assert file.getnframes() == 7_200


def test_chunks_behind_the_sound_are_no_rest() -> None:
    content = tone(300, container="WAV")
    odd = content[:40] + struct.pack("<I", len(content) - 45) + content[44:-1]
    for whole in (content, odd, odd + b"\0"):
        assert decode(whole + b"LIST" + struct.pack("<I", 4) + b"INFO" + b"id3 " + struct.pack("<I", 2) + b"ab")
    with pytest.raises(AudioError, match="holds no sound"):
        decode(content[:40] + bytes(4) + b"LIST" + struct.pack("<I", 4) + b"INFO")


def test_an_mp3_of_frames_alone_may_be_made_of_several() -> None:
    """Only the first frame's count of all frames makes a player stop there."""
    content = recording_of(Container.MP3)
    bare = content[content.index(content[:2], 4) :]  # without the frame that tells the count
    assert decode(bare).seconds == pytest.approx(1.0, abs=0.1)
    assert decode(bare + bare).seconds == pytest.approx(2 * decode(bare).seconds, abs=0.06)


def test_a_recording_longer_than_fits_is_refused_before_it_fills_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (Container.WAV, Container.FLAC, Container.M4A):
        content = recording_of(kind)
        decode(content)
        with monkeypatch.context() as change:
            change.setattr(convert, "MOST_SAMPLES", 20_000)
            with pytest.raises(AudioError, match="more sound than is taken"):
                decode(content)


def test_a_file_with_several_tracks_is_a_fault() -> None:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="ipod") as file:
        streams = [file.add_stream("aac", rate=48_000, layout="mono") for _ in range(2)]
        for stream in streams:
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 9600), np.float32), format="fltp", layout="mono")
            frame.sample_rate = 48_000
            file.mux([*stream.encode(frame), *stream.encode(None)])
    with pytest.raises(AudioError, match="2 tracks of sound"):
        decode(buffer.getvalue())


@pytest.mark.parametrize("change", [None, (40, 2), (24, 1), (34, 24)])
def test_what_is_as_a_model_takes_it_is_not_decoded_and_all_else_is(change: tuple[int, int] | None) -> None:
    """The short way gives the bytes and seconds of the long one; with a byte of the header off it is not taken."""
    samples = np.random.default_rng(0).integers(-32768, 32768, 1234) / 32768
    content = bytearray(encode_wav(samples, 16_000))
    if change is not None:
        place, value = change
        content[place] = value
    try:
        decoded = decode(bytes(content))
        expected = encode_wav(to_mono(decoded), 16_000), decoded.seconds
    except AudioError:
        with pytest.raises(AudioError):
            for_model(bytes(content), "16k")
        with pytest.raises(AudioError):
            seconds_of(bytes(content))
        return
    assert (for_model(bytes(content), "16k").content, seconds_of(bytes(content))) == expected


def test_a_waveform_is_loud_where_the_recording_is() -> None:
    sound = np.concatenate([np.zeros(800), sine(200, 0.1, 8000), np.full(800, -1.0)])
    peaks, seconds = waveform(wav(np.stack([sound, 0 * sound], axis=1), 8000), 3)
    assert seconds == pytest.approx(0.3)
    assert peaks == pytest.approx([0.0, 0.5, 1.0], abs=0.01)
    assert len(waveform(wav(np.ones(2), 8000), 160)[0]) == 2, "no more parts than samples"


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("form", ["u8", "s16", "s32", "flt", "dbl", "u8p", "s16p", "s32p", "fltp", "dblp"])
def test_samples_of_codecs_are_the_floats_that_ffmpeg_makes_of_them(form: str, channels: int) -> None:
    layout = "mono" if channels == 1 else "stereo"
    loud = np.linspace(-1.0, 1.0, 96).reshape(2, 48)[:channels]
    whole = av.AudioFrame.from_ndarray(np.ascontiguousarray(loud), format="dblp", layout=layout)
    whole.sample_rate = 16_000
    frames = av.AudioResampler(format=form).resample(whole)
    parts = [frame.to_ndarray() for frame in frames]
    found = convert._as_floats([*parts, *parts], frames[0].format.is_planar, channels)
    plain = av.AudioResampler(format="dblp")
    expected = np.concatenate([each.to_ndarray() for frame in frames for each in plain.resample(frame)], axis=1).T
    assert found.shape == (96, channels) and found.dtype == np.float64
    np.testing.assert_array_equal(found, np.concatenate([expected, expected]))
