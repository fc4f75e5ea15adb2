"""From Whisper frames to soft tokens: the one thing that is trained.

A projector shortens the frames (B, T, d) by its stride and gives, for each soft token, a row
for the LM's embedding stream and, where the LM has value embeddings, a row for each of them.
Must not know about shards, prompts or the LM's code: only four sizes of the LM reach it.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omni.bridge.frames import pad_features
from omni.errors import OmniError
from omni.formats.run_files import ProjectorConfig


class Soft(NamedTuple):
    """A batch of soft tokens, right-padded.

    rows: (B, N, C), what stands in for token embeddings (the LM's own norm follows).
    ve_rows: (B, N, n_ve, kv_dim), what stands in for value embeddings, or None (zeros).
    lengths: (B,) int64, soft tokens of each utterance; the rest is padding.
    """

    rows: Tensor
    ve_rows: Tensor | None
    lengths: Tensor


def build_projector(
    name: str = "mlp",
    d_in: int = 512,
    n_embd: int = 128,
    n_ve: int = 0,
    kv_dim: int = 0,
    stack: int = 4,
    hidden: int = 1024,
    audio_ve: str = "learned",
    n_layers_in: int = 1,
) -> "Projector":
    """A projector with fresh weights (fp32) from torch's global generator.

    Args:
        name: a key of `PROJECTORS`: "mlp", "conv" or "linear".
        d_in: width of a Whisper frame (512 for whisper-base).
        n_embd: width C of the LM's embedding rows.
        n_ve, kv_dim: how many value-embedding layers the LM has, and their width K*D.
        stack: frames to a soft token; 4 of Whisper's 50 a second give 12.5 tokens a second.
        hidden: width inside; `linear` has none and ignores it.
        audio_ve: "learned" (value rows from a zero-init head), "shared" (one such row for all
            value-embedding layers) or "zero" (none).
        n_layers_in: encoder layers in each shard; above 1 they are mixed by learned weights.

    Raises:
        OmniError: an unknown name or `audio_ve`, or a size below 1.
    """
    if name not in PROJECTORS:
        raise OmniError(f"no projector {name!r}", mend=f"choose one of {', '.join(PROJECTORS)}")
    if audio_ve not in AUDIO_VE:
        raise OmniError(f"no audio_ve {audio_ve!r}", mend=f"choose one of {', '.join(AUDIO_VE)}")
    if min(d_in, n_embd, stack, hidden, n_layers_in) < 1:
        raise OmniError("a projector's sizes must be at least 1", where=f"stack {stack}")
    body = PROJECTORS[name](d_in, stack, hidden)
    config: ProjectorConfig = {
        "name": name, "d_in": d_in, "n_embd": n_embd, "n_ve": n_ve, "kv_dim": kv_dim,
        "stack": stack, "hidden": hidden, "audio_ve": audio_ve, "n_layers_in": n_layers_in,
    }  # fmt: skip
    return Projector(body, config)


class Projector(nn.Module):
    """Layer mix, body (frames to features of soft tokens), and the two heads.

    Attributes:
        config: the arguments of `build_projector` that give this module back.
    """

    def __init__(self, body: "Body", config: ProjectorConfig) -> None:
        super().__init__()
        self.config = config
        self.stack: int = config["stack"]
        self.mix = nn.Parameter(torch.zeros(config["n_layers_in"]))  # softmax: an equal mix first
        self.mix.requires_grad_(config["n_layers_in"] > 1)
        self.body = body
        # The LM norms these rows at the splice, where a near-zero row has a huge gradient: this
        # head keeps torch's init and is never zero.
        self.row_head = nn.Linear(body.d_out, config["n_embd"])
        # No norm follows a value row: zeros are a safe start, audio can only add.
        n_ve = {"learned": config["n_ve"], "shared": min(config["n_ve"], 1), "zero": 0}
        n_values = n_ve[config["audio_ve"]] * config["kv_dim"]
        self.ve_head = nn.Linear(body.d_out, n_values) if n_values else None
        if self.ve_head is not None:
            nn.init.zeros_(self.ve_head.weight)
            nn.init.zeros_(self.ve_head.bias)

    def forward(self, features: Tensor, lengths: Tensor) -> Soft:
        """Project a right-padded batch; padding never reaches a valid soft token.

        Args:
            features: (B, T, d) fp32, or (B, L, T, d) where the shards hold L layers.
            lengths: (B,) valid frames of each utterance.

        Raises:
            OmniError: the features have another width or number of layers.
        """
        x = self._mix_layers(features)
        valid = torch.arange(x.shape[1], device=x.device) < lengths[:, None]  # (B, T)
        x = x * valid[..., None].to(x.dtype)
        h = self.body(x)  # (B, N, d_out)
        rows = self.row_head(h)  # (B, N, C)
        n_ve, kv_dim = self.config["n_ve"], self.config["kv_dim"]
        ve_rows = None
        if self.ve_head is not None:
            ve_rows = self.ve_head(h).unflatten(-1, (-1, kv_dim))  # (B, N, n_ve or 1, kv_dim)
            ve_rows = ve_rows.expand(-1, -1, n_ve, -1)
        return Soft(rows, ve_rows, -(-lengths // self.stack))

    def output_length(self, n_frames: int) -> int:
        """Soft tokens of an utterance of `n_frames` frames: ceil(n_frames / stack)."""
        return -(-n_frames // self.stack)

    def _mix_layers(self, features: Tensor) -> Tensor:
        """(B, T, d) from (B, T, d) or (B, L, T, d)."""
        want = (self.config["n_layers_in"], self.config["d_in"])
        got = (features.shape[1] if features.dim() == 4 else 1, features.shape[-1])
        if got != want:
            raise OmniError(
                f"features of {got[0]} layer(s) and width {got[1]}, the projector takes "
                f"{want[0]} and {want[1]}",
                mend="use shards of the encoder and layers it was trained on",
            )
        if features.dim() == 3:
            return features
        return torch.einsum("l,bltd->btd", self.mix.softmax(0).to(features.dtype), features)


class Body(nn.Module):
    """Frames (B, T, d), zero beyond each length, to (B, ceil(T / stack), d_out)."""

    d_out: int


class Norm(nn.RMSNorm):
    """RMSNorm in the dtype of its weight: fp32 under autocast too."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., d) of any float dtype to (..., d) of the weight's."""
        # torch has one kernel for an input and a weight of one dtype, and eight for a bf16 input
        # with an fp32 weight (autocast casts neither). It is the input that is cast: that loses
        # nothing, where a weight in bf16 would be rounded away from what the optimiser holds. The
        # fp32 activation is 2 bytes a hidden unit and soft token more: next to nothing.
        return super().forward(x.to(self.weight.dtype))


class MlpBody(Body):
    """Stack k frames, RMSNorm, Linear, RMSNorm, GELU.

    The first norm tames Whisper's few massive channels, the second keeps the hidden units in
    GELU's bend whatever the speaker's level.
    """

    def __init__(self, d_in: int, stack: int, hidden: int) -> None:
        super().__init__()
        self.stack, self.d_out = stack, hidden
        self.norm_in = Norm(d_in * stack, eps=1e-5)
        self.fc = nn.Linear(d_in * stack, hidden)
        self.norm_mid = Norm(hidden, eps=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, d) to (B, N, hidden)."""
        return F.gelu(self.norm_mid(self.fc(self.norm_in(_stack(x, self.stack)))))


class ConvBody(Body):
    """A convolution of kernel 2k and stride k, GELU, then Linear, RMSNorm, GELU.

    Each soft token sees half a stride beyond its own frames on either side.
    """

    def __init__(self, d_in: int, stack: int, hidden: int) -> None:
        super().__init__()
        self.stack, self.d_out = stack, hidden
        self.norm_in = Norm(d_in, eps=1e-5)
        self.conv = nn.Conv1d(d_in, hidden, kernel_size=2 * stack, stride=stack)
        self.fc = nn.Linear(hidden, hidden)
        self.norm_mid = Norm(hidden, eps=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, d) to (B, N, hidden)."""
        x = self.norm_in(x).transpose(1, 2)  # (B, d, T): a zero frame stays zero
        n_out = -(-x.shape[-1] // self.stack)
        left = self.stack // 2
        x = F.pad(x, (left, (n_out + 1) * self.stack - x.shape[-1] - left))
        x = F.gelu(self.conv(x).transpose(1, 2))  # (B, N, hidden)
        return F.gelu(self.norm_mid(self.fc(x)))


class LinearBody(Body):
    """Stack k frames and norm: with the heads, one matrix. The floor of any comparison."""

    def __init__(self, d_in: int, stack: int, hidden: int) -> None:
        super().__init__()
        self.stack, self.d_out = stack, d_in * stack
        self.norm_in = Norm(self.d_out, eps=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, d) to (B, N, d * k)."""
        return self.norm_in(_stack(x, self.stack))


PROJECTORS: dict[str, Callable[[int, int, int], Body]] = {
    "mlp": MlpBody,
    "conv": ConvBody,
    "linear": LinearBody,
}
AUDIO_VE = ("learned", "shared", "zero")


def _stack(x: Tensor, k: int) -> Tensor:
    """(B, T, d) to (B, ceil(T / k), k * d), the last group filled with zeros."""
    x = F.pad(x, (0, 0, 0, -x.shape[1] % k))
    return x.unflatten(1, (-1, k)).flatten(2)


def project(
    projector: Projector, features: Sequence[np.ndarray], device: torch.device | str
) -> Soft:
    """Soft tokens of a few utterances: pad on the right and project."""
    padded, lengths = pad_features(features)
    # Half the bytes cross to a device if the cast happens there.
    return projector(padded.to(device).float(), lengths.to(device))
