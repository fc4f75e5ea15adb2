"""Neural voices: Kokoro-82M, blends of its voices, and piper's joe, from the packages of fetch_voices.py.

One core, no chance: the same samples on every call (on one kind of CPU: the networks are rounded to
8 bits). Must not know any corpus.
"""

import json
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from fetch_voices import CACHE, JOE, KOKORO, check, package

from omni.errors import OmniError

Wave = npt.NDArray[np.float32]
KOKORO_RATE, JOE_RATE = 24_000, 22_050
# Kept for tests on voices that nobody has heard: in no corpus, in no blend.
RESERVED = frozenset(
    ("af_heart", "af_bella", "am_michael", "am_fenrir", "am_onyx", "bf_emma", "bm_george")
)
_STYLES = (510, 256)  # one for each number of phonemes


def kokoro(name: str, accent: str, text: str, speed: float) -> Wave:
    """Speak with Kokoro.

    Args:
        name: a voice ("af_nova"), or a blend of some: "af_nova+af_river", "bf_lily:2+af_river:1".
        accent: "US" or "GB", whose phonemes are spoken; the voice's timbre stays its own.
        speed: 1 is the voice's own; 1.2 is faster.

    Returns:
        (n,) float32 at `KOKORO_RATE`.

    Raises:
        OmniError: no such voice or accent, a reserved voice, a text that can't be spoken.
    """
    if accent not in ("US", "GB"):
        raise OmniError(f"Kokoro has no accent {accent!r}", name, "US or GB")
    numbers = _vocabulary()
    phonemes = [numbers[p] for p in _phonemes(accent)(text) if p in numbers]
    if not 0 < len(phonemes) <= _STYLES[0]:
        raise OmniError(f"{len(phonemes)} phonemes to speak", text[:60])
    feed = {
        "tokens": np.array([[0, *phonemes, 0]], np.int64),
        "style": _style(name)[len(phonemes) - 1][None],
        "speed": np.array([speed], np.float32),
    }
    wave: Wave = _session(f"{KOKORO}/model.onnx").run(None, feed)[0]
    return wave


def joe(text: str, tempo: float) -> Wave:
    """Speak with piper's joe, without the chance that it has by default.

    Args:
        tempo: speaking time as a share of the voice's own.

    Returns:
        (n,) float32 at `JOE_RATE`.
    """
    piper = package("piper.config")
    config = piper.SynthesisConfig(length_scale=tempo, noise_scale=0.0, noise_w_scale=0.0)
    chunks = [chunk.audio_float_array for chunk in _joe().synthesize(text, config)]
    return np.concatenate(chunks).astype(np.float32)


def parts(name: str) -> dict[str, float]:
    """The voices of a blend and their shares, which add up to 1.

    Raises:
        OmniError: a share that is no number above 0, or a reserved voice.
    """
    shares: dict[str, float] = {}
    for part in name.split("+"):
        voice, _, share = part.partition(":")
        if voice in RESERVED:
            raise OmniError(f"{voice} is reserved for tests", name, "take another voice")
        try:
            shares[voice] = float(share or 1)
        except ValueError:
            shares[voice] = 0.0
        if not shares[voice] > 0:
            raise OmniError(f"a share of {share!r}", name)
    whole = sum(shares.values())
    return {voice: share / whole for voice, share in shares.items()}


@cache
def _style(name: str) -> Wave:
    """(510, 256): the blend, one row for each number of phonemes."""
    style = np.zeros(_STYLES, np.float32)
    for voice, share in parts(name).items():
        path = CACHE / KOKORO / "voices" / f"{voice}.bin"
        if not path.is_file():
            raise OmniError(f"Kokoro has no voice {voice}", name)
        style += np.float32(share) * np.fromfile(path, np.float32).reshape(_STYLES)
    return style


@cache
def _vocabulary() -> dict[str, int]:
    numbers: dict[str, int] = json.loads((CACHE / KOKORO / "vocab.json").read_text())["vocab"]
    return numbers


@cache
def _phonemes(accent: str) -> Callable[[str], str]:
    """Text to phonemes, as people of that accent say it."""
    spell: Callable[[str], str] = package("hibari.g2p").G2P(british=accent == "GB")
    return spell


@cache
def _session(name: str) -> Any:
    check()
    ort = package("onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    providers = ["CPUExecutionProvider"]
    return ort.InferenceSession(str(CACHE / name), options, providers=providers)


@cache
def _joe() -> Any:
    voice = package("piper.voice").PiperVoice
    config_type = package("piper.config").PiperConfig
    config = json.loads((CACHE / f"{JOE}.json").read_text(encoding="utf-8"))
    return voice(session=_session(JOE), config=config_type.from_dict(config))
