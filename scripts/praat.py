"""The pitch of a voice, measured and moved by Praat (praat-parselmouth, of fetch_voices.py).

Must not know who speaks, nor what.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from fetch_voices import package

from omni.errors import OmniError

Wave = npt.NDArray[np.float32]
_LOWEST, _HIGHEST, _STEP = 60.0, 450.0, 0.01  # Hz of a voice; seconds
_MOST = 2.0  # times that a pitch can be moved by before it is no voice any more


def pitch(wave: Wave, rate: int) -> float:
    """Median of the fundamental over voiced frames, in Hz; nan where none is voiced."""
    return _median(_sound(wave, rate))


def at_pitch(wave: Wave, rate: int, hertz: float) -> Wave:
    """The same speech, (n,), with its median pitch at about `hertz`; its formants and its pace stay.

    Pitch-synchronous overlap-add (Moulines and Charpentier 1990), as Praat does it.

    Raises:
        OmniError: nothing is voiced, or the pitch is more than an octave away.
    """
    call = package("parselmouth.praat").call
    sound = _sound(wave, rate)
    now = _median(sound)
    factor = hertz / now
    if not 1 / _MOST < factor < _MOST:
        raise OmniError(f"a pitch of {now:.0f} Hz can't be moved to {hertz:.0f}", "at_pitch")
    manipulation = call(sound, "To Manipulation", _STEP, _LOWEST, _HIGHEST)
    tier = call(manipulation, "Extract pitch tier")
    call(tier, "Multiply frequencies", sound.xmin, sound.xmax, factor)
    call([tier, manipulation], "Replace pitch tier")
    moved: Wave = call(manipulation, "Get resynthesis (overlap-add)").values[0].astype(np.float32)
    return moved


def _sound(wave: Wave, rate: int) -> Any:
    return package("parselmouth").Sound(wave.astype(np.float64), rate)


def _median(sound: Any) -> float:
    found = sound.to_pitch(_STEP, _LOWEST, _HIGHEST).selected_array["frequency"]
    voiced = found[found > 0]
    return float(np.median(voiced)) if len(voiced) else float("nan")
