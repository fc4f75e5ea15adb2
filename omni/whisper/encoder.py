"""The frozen Whisper encoder: windows of at most 30 s in, the frames that hold speech out.

The layers are transformers'; the walk through them is ours, to leave out what nobody keeps. Whisper
attends to the silence that pads a window, so the window is cut only where `omni.whisper.window` is told to
(that changes the features); but in the last layer only the kept frames need queries and an MLP, which changes nothing
beyond rounding. Must not know about corpora or shards.
"""

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F

from omni.audio import SAMPLE_RATE, import_torchaudio
from omni.encoder import DEFAULT_ENCODER, WHISPER_FRAMES_PER_SECOND
from omni.errors import OmniError
from omni.whisper.mel import WINDOW_SAMPLES, log_mel
from omni.whisper.samples import Each, assemble
from omni.whisper.weights import WhisperSizes, find_weights
from omni.whisper.window import EXACT, Window

TRIM_VERSION = 1  # part of the shard fingerprint: raise it when the kept frames change
SAMPLES_PER_FRAME = SAMPLE_RATE // WHISPER_FRAMES_PER_SECOND

Layers = Literal["last"] | Sequence[int]


def load_encoder(
    name: str = DEFAULT_ENCODER, device: str = "cpu", dtype: torch.dtype | None = None
) -> "WhisperEncoder":
    """Load a frozen encoder and say in one line where its weights came from.

    Args:
        name: a folder, or a hub id; see `omni.whisper.weights` for the sources and their order.
        device: "cpu", "cuda", "cuda:1", …
        dtype: precision of the computation; None: float16 on a GPU, float32 on the CPU.

    Raises:
        OmniError: no source has it, or the weights are not those of a Whisper encoder.
    """
    import_torchaudio()  # a mismatched one would break the import of transformers without a word why
    weights = find_weights(name)
    encoder = WhisperEncoder(weights.config, weights.tensors, name, weights.source, device, dtype)
    print(
        f"encoder: {name} from {weights.source}, {encoder.n_layers} layers of {encoder.d_model}, "
        f"hash {encoder.hash[:12]}"
    )
    return encoder


def default_dtype(kind: str) -> torch.dtype:
    """What is computed in on a kind of device ("cpu", "cuda") unless somebody says else."""
    return torch.float32 if kind == "cpu" else torch.float16


def frame_count(n_samples: int) -> int:
    """Frames kept of a recording: one for each that is begun."""
    return -(-n_samples // SAMPLES_PER_FRAME)


def chunk_count(n_samples: int) -> int:
    """30 s windows a recording takes; 30 s is a whole number of frames, so their frames add up."""
    return -(-n_samples // WINDOW_SAMPLES)


def split_windows(wave: np.ndarray) -> list[np.ndarray]:
    """A recording (n,) as consecutive windows of at most 30 s."""
    return [wave[i : i + WINDOW_SAMPLES] for i in range(0, len(wave), WINDOW_SAMPLES)]


@dataclass(frozen=True)
class Frames:
    """Features of a batch of windows, back to back, only the kept frames."""

    features: torch.Tensor  # ([L,] sum of counts, d)
    counts: list[int]  # frames of each window

    def split(self) -> list[torch.Tensor]:
        """One ([L,] T, d) view a window."""
        return list(self.features.split(self.counts, dim=-2))


class WhisperEncoder:
    """Frozen encoder; `hash` names its weights whatever their source.

    Args:
        config: of the sizes of the tensors.
        tensors: `encoder.…` under transformers' names.
        name, source: for messages and provenance.
    """

    def __init__(
        self,
        config: WhisperSizes,
        tensors: dict[str, torch.Tensor],
        name: str,
        source: str,
        device: str = "cpu",
        dtype: torch.dtype | None = None,
    ) -> None:
        self.name = name
        self.source = source
        self.device = torch.device(device)
        self.dtype = dtype or default_dtype(self.device.type)
        own = {key.removeprefix("encoder."): value for key, value in tensors.items()}
        self.hash = encoder_hash(own)
        self.module = _build(config, own, name).to(self.device, self.dtype)
        self.d_model: int = self.module.config.d_model
        self.n_layers: int = self.module.config.encoder_layers
        self.n_mels: int = self.module.config.num_mel_bins
        self.frames_per_second: float = WHISPER_FRAMES_PER_SECOND

    def encode(
        self, waves: Sequence[np.ndarray], layers: Layers = "last", window: Window = EXACT
    ) -> list[torch.Tensor]:
        """Features of recordings of any length, in one batch for each length of window.

        Args:
            waves: float32 (n,) each, 16 kHz mono, n >= 1; over 30 s in chunks, concatenated.
            layers: "last" (after the final norm), or indices as in transformers' `hidden_states`:
                0 the input of the first layer, i the output of layer i, `n_layers` as "last".
            window: how much silence follows the speech.

        Returns:
            A tensor on the device for each wave: (T, d), or (L, T, d) for a list of layers;
            T = frame_count(n).
        """
        chunked = [split_windows(wave) for wave in waves]
        if any(not chunks for chunks in chunked):
            raise OmniError("a recording without samples can't be encoded")
        flat = [w for chunks in chunked for w in chunks]
        by_length: dict[int, list[int]] = {}
        for i, w in enumerate(flat):
            by_length.setdefault(window.length(frame_count(len(w))), []).append(i)
        pieces: dict[int, torch.Tensor] = {}
        for members in by_length.values():
            frames = self.encode_windows([flat[i] for i in members], layers, window)
            pieces.update(zip(members, frames.split(), strict=True))
        out, start = [], 0
        for chunks in chunked:
            mine = [pieces[i] for i in range(start, start + len(chunks))]
            out.append(torch.cat(mine, dim=-2))
            start += len(chunks)
        return out

    def encode_windows(
        self, windows: Sequence[np.ndarray], layers: Layers = "last", window: Window = EXACT
    ) -> Frames:
        """Features of windows of at most 30 s and one length: `mel`, then `encode_mel`."""
        mel, counts = self.mel(windows, window=window)
        return Frames(self.encode_mel(mel, counts, layers, window), counts)

    @torch.no_grad()
    def mel(
        self,
        windows: Sequence[np.ndarray],
        pad_to: int | None = None,
        window: Window = EXACT,
        buffer: Callable[[int], torch.Tensor] | None = None,
        each: Each = map,
    ) -> tuple[torch.Tensor, list[int]]:
        """Log-mel on the device, and the frames to keep of each window.

        The samples go to the device as they are; on a GPU nothing here waits for it if the buffer is
        pinned. The buffer may be used again once the device has done what this launched.

        Args:
            windows: float32 (n,), 1 <= n <= 480,000.
            pad_to: batch size to fill up with silence (one static shape for a GPU).
            window: gives all of them the same length F in frames.
            buffer: gives float32 (m,) on the host for the samples, told m; None: a new one.
            each: fills its rows; see `omni.whisper.samples`.

        Returns:
            (B, n_mels, 2 F) in the encoder's dtype, and `frame_count` of each window.
        """
        counts = [frame_count(len(wave)) for wave in windows]
        (length,) = {window.length(count) for count in counts}
        # A fitted window's shape must not depend on what shares its batch.
        exact = window.margin is None
        n = max(len(wave) for wave in windows) if exact else length * SAMPLES_PER_FRAME
        rows = max(pad_to or 0, len(windows))
        host = (buffer or self._new_buffer)(rows * n).view(rows, n)
        samples = assemble(windows, host, each).to(self.device, non_blocking=True)
        return log_mel(samples, self.n_mels, 2 * length).to(self.dtype), counts

    def _new_buffer(self, n: int) -> torch.Tensor:
        return torch.empty(n, pin_memory=self.device.type == "cuda")

    @torch.no_grad()
    def encode_mel(
        self,
        mel: torch.Tensor,
        counts: list[int],
        layers: Layers = "last",
        window: Window = EXACT,
    ) -> torch.Tensor:
        """Features of log-mel windows (B, n_mels, 2 F), back to back: ([L,] sum of counts, d)."""
        return self._forward(mel, counts, layers, window.most_kept(mel.shape[2] // 2))

    def _forward(
        self, mel: torch.Tensor, counts: list[int], layers: Layers, most_kept: int | None
    ) -> torch.Tensor:
        """mel (B, n_mels, 2 F) to ([L,] sum of counts, d)."""
        module = self.module
        x = _gelu_(module.conv2(_gelu_(module.conv1(mel)))).transpose(1, 2)  # (B, F, d)
        x = x + module.embed_positions.weight[: x.shape[1]]
        wanted = [self.n_layers] if layers == "last" else list(layers)
        kept: dict[int, torch.Tensor] = {}
        for i, layer in enumerate(module.layers[: max(wanted)]):
            if i in wanted:
                kept[i] = _valid(x, counts)
            # Nothing reads the frames beyond speech after the last layer.
            last = i == self.n_layers - 1
            x = _layer(layer, x, (most_kept or max(counts)) if last else x.shape[1])
        top = max(wanted)
        kept[top] = _valid(module.layer_norm(x) if top == self.n_layers else x, counts)
        return kept[top] if layers == "last" else torch.stack([kept[i] for i in wanted])


def encoder_hash(tensors: dict[str, torch.Tensor]) -> str:
    """sha256 over the tensors cast to float16, sorted by name: equal weights, equal hash.

    Each tensor enters as its name, a zero byte, its dimensions joined by commas, a zero byte, its
    little-endian bytes. Positions are left out: every source rounds the same sinusoids its own way.
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        if name.startswith("embed_positions."):
            continue
        value = tensors[name].detach().to("cpu", torch.float16).contiguous()
        shape = ",".join(str(size) for size in value.shape)
        digest.update(f"{name}\0{shape}\0".encode())
        digest.update(value.numpy().astype("<f2", copy=False).tobytes())
    return digest.hexdigest()


def parse_layers(text: str, n_layers: int) -> Layers:
    """`last`, `all` or `0,3,6` to what `encode` takes.

    Raises:
        OmniError: not numbers, repeated, or outside 0..n_layers.
    """
    if text == "last":
        return "last"
    if text == "all":
        return list(range(n_layers + 1))
    try:
        layers = [int(part) for part in text.split(",")]
    except ValueError:
        raise OmniError(
            "layers must be `last`, `all` or numbers like 0,3,6", f"--layers {text}"
        ) from None
    if sorted(set(layers)) != layers or not 0 <= layers[0] <= layers[-1] <= n_layers:
        raise OmniError(f"layers must rise from 0 to at most {n_layers}", f"--layers {text}")
    return layers


def _build(config: WhisperSizes, tensors: dict[str, torch.Tensor], name: str) -> Any:
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder as Layers_

    fields: dict[str, Any] = dict(config)
    settings = WhisperConfig(**fields)
    if settings.activation_function != "gelu":
        raise OmniError(f"activation {settings.activation_function!r} is not Whisper's", name)
    with torch.device("meta"):
        module = Layers_(settings)
    positions = _sinusoids(settings.max_source_positions, settings.d_model)
    given = tensors.get("embed_positions.weight")
    if (
        given is None
        or given.shape != positions.shape
        or (given.float() - positions).abs().max() > 1e-2
    ):
        raise OmniError("the encoder's positions are not Whisper's sinusoids", name)
    state = {key: value.float() for key, value in tensors.items()}
    state["embed_positions.weight"] = positions  # exact, whatever the source rounded them to
    try:
        module.load_state_dict(state, strict=True, assign=True)
    except RuntimeError as error:
        raise OmniError("the weights don't fit the encoder's config", name, str(error)) from error
    return module.requires_grad_(False).eval()


def _sinusoids(length: int, d: int) -> torch.Tensor:
    """float32 (length, d): sines then cosines, wavelengths from 2 pi to 20,000 pi (Whisper)."""
    rates = torch.exp(-math.log(10_000) / (d // 2 - 1) * torch.arange(d // 2))
    angles = torch.arange(length)[:, None] * rates[None, :]
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def _valid(x: torch.Tensor, counts: list[int]) -> torch.Tensor:
    """(B, T, d) to (sum of counts, d): the first frames of each row, padding rows dropped."""
    return torch.cat([row[:n] for row, n in zip(x, counts, strict=False)])


def _layer(layer: Any, x: torch.Tensor, n: int) -> torch.Tensor:
    """The layer's output for the first `n` frames, attending to all: x (B, T, d) to (B, n, d).

    The same sums as the layer's own forward, without the copies that it makes of heads and
    residuals: about a tenth of the time on a CPU.
    """
    attention = layer.self_attn
    normed = layer.self_attn_layer_norm(x)
    B, _, d = x.shape
    heads = (B, -1, attention.num_heads, attention.head_dim)
    q = attention.q_proj(normed[:, :n]).view(heads).transpose(1, 2)
    k = attention.k_proj(normed).view(heads).transpose(1, 2)
    v = attention.v_proj(normed).view(heads).transpose(1, 2)
    mixed = F.scaled_dot_product_attention(q, k, v)  # (B, heads, n, head_dim)
    y = attention.out_proj(mixed.transpose(1, 2).reshape(B, n, d)).add_(x[:, :n])
    return y.add_(layer.fc2(_gelu_(layer.fc1(layer.final_layer_norm(y)))))


def _gelu_(x: torch.Tensor) -> torch.Tensor:
    """Whisper's activation, in place."""
    return torch.ops.aten.gelu_(x)
