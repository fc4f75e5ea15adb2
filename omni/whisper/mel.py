"""Whisper's log-mel spectrogram, on whatever device the samples are.

Equal to transformers' WhisperFeatureExtractor to 1e-6, without its trip to the host. A 30 s window
of a short utterance is mostly zeros, whose spectrum is known: only the part with samples is
computed and the rest filled with the constant, bit for bit the same. Must not know about models.
"""

from functools import lru_cache

import numpy as np
import torch

from omni.audio import SAMPLE_RATE

MEL_VERSION = 1  # part of the shard fingerprint: raise it when a feature's value changes
WINDOW_SECONDS = 30
WINDOW_SAMPLES = WINDOW_SECONDS * SAMPLE_RATE
N_FFT = 400
HOP = 160
WINDOW_FRAMES = WINDOW_SAMPLES // HOP  # 3000

_FLOOR = 1e-10  # power below which the logarithm is cut


def log_mel(waves: torch.Tensor, n_mels: int = 80, frames: int = WINDOW_FRAMES) -> torch.Tensor:
    """Log-mel of windows whose samples are followed by silence, up to 30 s unless told otherwise.

    Formula: Radford et al. 2022 (Whisper), as in transformers' WhisperFeatureExtractor: Hann window
    of 25 ms, hop 10 ms, slaney mel filters, log10, 8 below the maximum cut, (x + 4) / 4.

    Args:
        waves: float32 (B, n), 16 kHz, n <= 160 x frames; shorter ones are right-padded with zeros.
        n_mels: 80, or 128 for large-v3.
        frames: of 10 ms; length of the window.

    Returns:
        float32 (B, n_mels, frames) on the device of `waves`.
    """
    B, n = waves.shape
    # Reflection at the right edge needs 200 zeros to reflect; hop-sized steps keep frames whole.
    span = min(frames * HOP, -(-(n + N_FFT) // HOP) * HOP)
    waves = torch.nn.functional.pad(waves, (0, span - n))
    window = torch.hann_window(N_FFT, device=waves.device)
    spectrum = torch.stft(waves, N_FFT, HOP, window=window, return_complex=True)
    power = (spectrum[..., :-1].abs() ** 2).contiguous()  # (B, 201, span / 160)
    log = (
        (_filters(n_mels, waves.device) @ power).clamp(min=_FLOOR).log10()
    )  # (B, n_mels, span / 160)
    floor = log.amax(dim=(1, 2), keepdim=True) - 8.0
    silence = torch.full((), _FLOOR, device=waves.device).log10()
    full = silence.expand(B, n_mels, frames).clone()
    full[:, :, : log.shape[2]] = log
    return (torch.maximum(full, floor) + 4.0) / 4.0


@lru_cache(maxsize=8)
def _filters(n_mels: int, device: torch.device) -> torch.Tensor:
    """float32 (n_mels, 201): slaney-normalised triangles from 0 to 8 kHz."""
    from transformers.audio_utils import mel_filter_bank

    bank = mel_filter_bank(
        num_frequency_bins=1 + N_FFT // 2,
        num_mel_filters=n_mels,
        min_frequency=0.0,
        max_frequency=8000.0,
        sampling_rate=SAMPLE_RATE,
        norm="slaney",
        mel_scale="slaney",
    )  # float64 (201, n_mels)
    return torch.from_numpy(bank.astype(np.float32)).to(device).T
