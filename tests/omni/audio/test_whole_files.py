"""A recording is read to its end, or refused: cut, joined, of unknown or wrong length.

.venv/bin/python -m pytest tests/omni/audio/test_whole_files.py
"""

from pathlib import Path

import numpy as np
import pytest
from audio_kit import encode, encode_media, hiss, lengths, put
from hypothesis import given, settings
from hypothesis import strategies as st

from omni.audio import audio_info, load_audio
from omni.errors import OmniError

N = 40_000
FORMATS = [
    *(("WAV", "PCM_16"), ("WAV", "FLOAT"), ("WAV", "IMA_ADPCM"), ("WAV", "GSM610")),
    *(("AIFF", "PCM_16"), ("RF64", "PCM_16"), ("AU", "PCM_16"), ("AU", "ULAW"), ("NIST", "PCM_16")),
    *(("W64", "PCM_16"), ("CAF", "PCM_16"), ("CAF", "ALAC_16"), ("SVX", "PCM_16")),
    *(("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", None)),
]
WAV = encode("WAV", "PCM_16")
DATA = WAV.index(b"data") + 4
FLAC = encode("FLAC", "PCM_16")
FLAC_TOTAL = 21  # the byte whose lower half is the first of the total


def flac_total(blob: bytes, total: int) -> bytes:
    """A FLAC file whose header says another number of samples."""
    field = int.from_bytes(blob[FLAC_TOTAL : FLAC_TOTAL + 5], "big") & ~((1 << 36) - 1) | total
    return put(blob, FLAC_TOTAL, field, 5, "big")


def without_information(blob: bytes) -> bytes:
    """An MP3 file without the frame that holds its length."""
    second = blob.index(blob[:2], 1)
    while blob[second + 2] & 0x0C != blob[2] & 0x0C:  # the same rate: a frame, not a chance
        second = blob.index(blob[:2], second + 1)
    return blob[second:]


@pytest.mark.parametrize(("format", "subtype"), FORMATS)
@pytest.mark.parametrize("share", [0.5, 0.8, 0.99])
def test_a_part_of_a_file_is_refused(format: str, subtype: str | None, share: float) -> None:
    whole = encode(format, subtype)
    assert len(load_audio(whole)) >= N
    with pytest.raises(OmniError, match="audio is cut off"):
        load_audio(whole[: int(len(whole) * share)])


@pytest.mark.parametrize("format", ["WAV", "AIFF", "AU", "NIST", "W64", "CAF", "RF64"])
def test_the_manifest_hears_of_a_cut_too(format: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(encode(format, "PCM_16")[:-5_000])
    with pytest.raises(OmniError, match="audio is cut off"):
        audio_info(tmp_path / "a")


@settings(max_examples=40, deadline=None)
@given(st.integers(min_value=0, max_value=2 * N - 1))
def test_any_cut_of_a_wav_is_refused(left: int) -> None:
    if 2 * N - left in (len(WAV) - 2 * N, len(WAV) - 2 * N - 8):
        return  # as if the writer had counted the header in
    with pytest.raises(OmniError):
        load_audio(WAV[: DATA + 4 + left])


@pytest.mark.parametrize(("format", "subtype"), FORMATS)
def test_files_behind_one_another_are_all_read(
    format: str, subtype: str | None, tmp_path: Path
) -> None:
    first = encode(format, subtype, hiss(16_000, 1))
    second = encode(format, subtype, hiss(24_000, 2))
    parts = [load_audio(first), load_audio(second), load_audio(first)]
    wave = load_audio(first + second + first)
    np.testing.assert_array_equal(wave, np.concatenate(parts))
    lengths(tmp_path, first + second)


def test_joined_files_may_have_other_rates_and_codecs(tmp_path: Path) -> None:
    ogg = encode("OGG", "VORBIS", rate=48_000) + encode("OGG", "OPUS", hiss(16_000))
    assert len(load_audio(ogg)) == -(-N // 3) + 16_000
    mp3 = encode("MP3", wave=hiss(44_100), rate=44_100) + encode("MP3", wave=hiss(24_000))
    assert len(load_audio(mp3)) == 40_000
    (tmp_path / "a.mp3").write_bytes(mp3)
    assert audio_info(tmp_path / "a.mp3") == (44_100 + round(24_000 * 44_100 / 16_000), 44_100)


@pytest.mark.parametrize("riff", [0xFFFFFFFF, 0x7FFFF024, 0, len(WAV) - 8])
@pytest.mark.parametrize("data", [0xFFFFFFFF, 0x7FFFF000, 0x7FFFFF00, 0x80000000, -37, 0])
def test_a_wav_written_into_a_pipe(riff: int, data: int, tmp_path: Path) -> None:
    assert lengths(tmp_path, put(put(WAV, DATA, data), 4, riff)) == (N, N)


@pytest.mark.parametrize(
    ("format", "mark", "skip", "width", "order", "value"),
    [
        ("AIFF", b"SSND", 4, 4, "big", 0),
        ("AIFF", b"SSND", 4, 4, "big", 0x7F000008),
        ("AIFF", b"SSND", 4, 4, "big", -1),
        ("AU", b".snd", 8, 4, "big", -1),
        ("AU", b".snd", 8, 4, "big", 0x7FFFF000),
        ("CAF", b"data", 4, 8, "big", -1),
        ("RF64", b"ds64", 16, 8, "little", -1),
        ("RF64", b"ds64", 16, 8, "little", 0),
        ("W64", b"data", 16, 8, "little", 24),
    ],
)
def test_other_headers_written_into_a_pipe(
    format: str, mark: bytes, skip: int, width: int, order: str, value: int, tmp_path: Path
) -> None:
    whole = encode(format, "PCM_16")
    piped = put(whole, whole.index(mark) + skip, value, width, order)
    assert lengths(tmp_path, piped) == (N, N)


def test_a_wav_header_that_says_too_little_or_too_much(tmp_path: Path) -> None:
    with pytest.raises(OmniError, match="64000 bytes lie behind the sound"):
        load_audio(put(WAV, DATA, 16_000))
    with pytest.raises(OmniError, match="80000 of 90000 bytes"):
        load_audio(put(WAV, DATA, 90_000))
    for counted_in in (36, 44):  # a common fault of writers; nothing is missing
        assert lengths(tmp_path, put(WAV, DATA, 2 * N + counted_in)) == (N, N)


@pytest.mark.parametrize(
    "tail",
    [b"TAG" + bytes(125), b"LIST\x10\x27\0\0" + b"x" * 10_000, bytes(9_000), b"ID3" + b"x" * 9_000],
    ids=["ID3v1", "LIST", "zeros", "ID3v2"],
)
def test_what_is_no_sound_may_follow(tail: bytes, tmp_path: Path) -> None:
    assert lengths(tmp_path, WAV + tail) == (N, N)


@pytest.mark.parametrize("total", [0, 1, 16_000, N - 1])
def test_a_flac_whose_header_does_not_know(total: int, tmp_path: Path) -> None:
    expected = load_audio(FLAC)
    blob = flac_total(FLAC, total)
    assert lengths(tmp_path, blob) == (N, N)
    np.testing.assert_array_equal(load_audio(blob), expected)
    with pytest.raises(OmniError, match="cut off"):
        load_audio(blob[: len(blob) * 2 // 3])
    assert lengths(tmp_path, blob + blob)[0] == 2 * N
    assert lengths(tmp_path, blob + b"TAG" + bytes(125)) == (N, N)


@pytest.mark.parametrize("total", [N + 1, 3 * N, (1 << 36) - 1])
def test_a_flac_whose_header_says_too_much(total: int, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(flac_total(FLAC, total))
    for read in (audio_info, load_audio):
        with pytest.raises(OmniError, match=f"{N} of {total} samples"):
            read(tmp_path / "a")


def test_flacs_with_tags_around_are_whole(tmp_path: Path) -> None:
    tag = b"ID3\4\0\0\0\0\0\x0a" + bytes(10)
    for blob in (tag + FLAC, FLAC + b"TAG" + bytes(125), FLAC + bytes(5_000)):
        assert lengths(tmp_path, blob) == (N, N)


@pytest.mark.parametrize("vbr", [True, False], ids=["vbr", "cbr"])
@pytest.mark.parametrize("rate", [8_000, 16_000, 24_000, 44_100])
def test_an_mp3_without_its_length(vbr: bool, rate: int, tmp_path: Path) -> None:
    whole = encode("MP3", rate=rate, vbr=vbr)
    bare = without_information(whole)
    n, _ = lengths(tmp_path, bare)
    # The coder's delay and padding stay, for nothing tells how long they are.
    assert N <= n <= N + 4 * 1152
    sound = load_audio(bare)
    quarter = len(sound) // 4
    assert np.abs(sound[-quarter:]).max() > 0.1  # to the last word
    tag = b"ID3\4\0\0\0\0\0\x0a" + bytes(10)
    assert lengths(tmp_path, tag + bare + b"TAG" + bytes(125))[0] == n
    assert lengths(tmp_path, bare + bare)[0] >= 2 * n - 1152


@pytest.mark.parametrize("frames", [1, 5, 40])
def test_an_mp3_that_says_too_little(frames: int, tmp_path: Path) -> None:
    whole = encode("MP3", vbr=True)
    blob = put(whole, whole.index(b"Xing") + 8, frames, 4, "big")
    assert lengths(tmp_path, blob)[0] >= N


def test_an_mp3_with_other_bytes_between_its_frames(tmp_path: Path) -> None:
    bare = without_information(encode("MP3"))
    assert lengths(tmp_path, bare + b"junk" * 40 + bare)[0] >= 2 * N


@pytest.mark.parametrize(
    ("format", "codec"),
    [("ipod", "aac"), ("mp4", "alac"), ("webm", "libopus"), ("matroska", "flac"), ("adts", "aac")],
)
def test_media_files_joined_and_cut(format: str, codec: str, tmp_path: Path) -> None:
    pytest.importorskip("av")
    blob = encode_media(format, codec)
    n, _ = lengths(tmp_path, blob)
    assert lengths(tmp_path, blob + blob)[0] >= 2 * n
    for share in (0.5, 0.8, 0.99):
        with pytest.raises(OmniError, match=r"cut off|can't be decoded"):
            load_audio(blob[: int(len(blob) * share)])
