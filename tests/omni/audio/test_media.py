"""What libsndfile doesn't know is read with PyAV, or refused with how to convert it.

.venv/bin/python -m pytest tests/omni/audio/test_media.py
"""

import sys
from pathlib import Path

import numpy as np
import pytest
from audio_kit import encode_media, hiss, lengths

from omni.audio import audio_info, load_audio
from omni.errors import OmniError

pytest.importorskip("av")


@pytest.mark.parametrize(
    ("format", "codec", "rate"),
    [
        *(("ipod", "aac", 16_000), ("mp4", "aac", 44_100), ("adts", "aac", 24_000)),
        *(("mp4", "alac", 44_100), ("webm", "libopus", 48_000), ("asf", "wmav2", 16_000)),
        *(("ogg", "flac", 16_000), ("matroska", "aac", 48_000)),
    ],
)
def test_media_become_mono_16k(format: str, codec: str, rate: int, tmp_path: Path) -> None:
    n = 2 * rate
    got, _ = lengths(tmp_path, encode_media(format, codec, hiss(n), rate))
    assert n - 512 <= got <= n + 3 * 1024  # a frame of the coder's delay, a frame filled up
    time = np.arange(n) / rate
    tone = (0.4 * np.sin(2 * np.pi * 440 * time)).astype(np.float32)
    wave = load_audio(encode_media(format, codec, tone, rate))
    middle = wave[8_000:24_000]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
    assert int(spectrum.argmax()) == 440
    assert np.sqrt(np.mean(middle**2)) == pytest.approx(0.4 / np.sqrt(2), rel=0.05)


def test_without_pyav_the_error_says_how_to_convert(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blob = encode_media("ipod", "aac")
    monkeypatch.setitem(sys.modules, "av", None)
    path = tmp_path / "b c.m4a"
    path.write_bytes(blob)
    for read in (audio_info, load_audio):
        with pytest.raises(OmniError, match="needs PyAV") as caught:
            read(path)
        assert f"ffmpeg -i '{path}' 'b c.wav'" in caught.value.mend
        assert "extra media" in caught.value.mend
    with pytest.raises(OmniError, match="needs PyAV"):
        load_audio(blob)


@pytest.mark.parametrize(
    "blob",
    [
        b"#EXTM3U\n#EXTINF:1,\n/etc/hostname\n",
        b"ffconcat version 1.0\nfile '/etc/hostname'\n",
        b"<?xml version='1.0'?><MPD></MPD>",
        b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\n",
    ],
    ids=["hls", "concat", "dash", "sdp"],
)
def test_a_playlist_opens_no_other_file(blob: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.m4a").write_bytes(blob)
    with pytest.raises(OmniError, match="can't be decoded"):
        load_audio(tmp_path / "a.m4a")


@pytest.mark.parametrize("name", ["mp4", "webm", "asf", "aac"])
def test_a_damaged_medium_is_one_line(name: str) -> None:
    heads = {
        "mp4": b"\0\0\0\x18ftypM4A " + bytes(12) + b"\0\0\0\x08moov",
        "webm": b"\x1aE\xdf\xa3\x80\x18\x53\x80\x67\xff",
        "asf": b"\x30\x26\xb2\x75\x8e\x66\xcf\x11" + bytes(40),
        "aac": b"\xff\xf1\x50\x80\x02\x1f\xfc" + bytes(9),
    }
    with pytest.raises(OmniError):
        load_audio(heads[name])
