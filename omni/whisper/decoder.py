"""Whisper's own decoder on features out of shards: what plain speech recognition gets from them.

Shards hold the frames of speech alone, and a decoder that sees nothing else does not know where to
stop: it says the sentence again and again. It was trained on whole windows of 30 s, so the frames
that were cut off are replaced by those of a window in which nothing is said: the encoder, which
comes with the decoder, makes them once. All windows then have one length, and none needs a mask
(transformers' decoder has none for what it attends to). How close that comes to the window as the
encoder left it is measured in docs/metrics.md.

Must not know about runs, projectors or the LM.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NotRequired

import numpy as np
import torch
from torch import Tensor
from typing_extensions import TypedDict

from omni.encoder import most_said
from omni.errors import OmniError
from omni.formats.checked import read_json
from omni.whisper.encoder import WhisperEncoder
from omni.whisper.mel import WINDOW_SAMPLES
from omni.whisper.weights import Weights, find_weights
from omni.whisper.window import FULL_FRAMES

FEWEST_FRAMES = 10  # a window of less than 0.2 s holds no word, but Whisper would find some
ENGLISH_ONLY_VOCABULARY = 51864  # of the models `….en`: they were trained without a language token
# Ids that Whisper's decoding forbids (music, brackets, other tasks), by the file that names them.
_NEVER = ("suppress_tokens", "suppress_ids")
_NOT_FIRST = ("begin_suppress_tokens", "suppress_ids_begin")


@dataclass(frozen=True)
class WhisperDecoder:
    """The decoder and what it needs to read features.

    module: transformers' WhisperDecoder. silence: (1500, d), the encoder's window of no sound.
    layer: which of the stored layers is the last one; None where only that is stored.
    start: prompt ids. end: id that ends a text, above all ids of text. never, not_first: forbidden.
    """

    module: Any
    tokenizer: Any
    silence: Tensor
    layer: int | None
    start: list[int]
    end: int
    never: list[int]
    not_first: list[int]
    source: str

    def transcribe(self, features: Sequence[np.ndarray], batch_size: int = 8) -> list[str]:
        """Greedy transcripts, no timestamps, in the given order.

        Args:
            features: (T, d) each, or (L, T, d) as stored; more than 1500 frames are windows of
                1500 in a row, each read by itself.
            batch_size: windows that are decoded together.
        """
        windows: list[tuple[int, np.ndarray]] = []
        for i, x in enumerate(features):
            frames = x if self.layer is None else x[self.layer]
            cuts = range(0, len(frames), FULL_FRAMES)
            windows += [(i, frames[at : at + FULL_FRAMES]) for at in cuts]
        windows = [(i, w) for i, w in windows if len(w) >= FEWEST_FRAMES]
        # Neighbours in length end at about the same step.
        order = sorted(range(len(windows)), key=lambda j: len(windows[j][1]))
        texts: dict[int, str] = {}
        for begin in range(0, len(order), batch_size):
            part = order[begin : begin + batch_size]
            ids = self._greedy([windows[j][1] for j in part])
            texts.update(zip(part, map(self._text, ids), strict=True))
        said: list[list[str]] = [[] for _ in features]
        for j, (i, _) in enumerate(windows):
            said[i].append(texts[j])
        return [" ".join(part for part in parts if part) for parts in said]

    def fill(self, windows: Sequence[np.ndarray]) -> Tensor:
        """(B, 1500, d) on the device: the stored frames, then silence."""
        hidden = self.silence.repeat(len(windows), 1, 1)
        for row, window in zip(hidden, windows, strict=True):
            row[: len(window)] = torch.from_numpy(window).to(row)
        return hidden

    @torch.inference_mode()
    def _greedy(self, windows: Sequence[np.ndarray]) -> list[list[int]]:
        """Ids of each window, prompt and end left out."""
        hidden = self.fill(windows)
        bounds = [most_said(len(w)) for w in windows]
        room = self.module.config.max_target_positions - len(self.start)
        out: list[list[int]] = [[] for _ in windows]
        feed = torch.tensor([self.start] * len(windows), device=hidden.device)
        cache = None
        ended = [False] * len(windows)
        for step in range(room):
            state = self.module(
                input_ids=feed, encoder_hidden_states=hidden, past_key_values=cache, use_cache=True
            )
            cache = state.past_key_values
            logits = state.last_hidden_state[:, -1] @ self.module.embed_tokens.weight.T
            logits[:, self.never] = -torch.inf
            if step == 0:
                logits[:, self.not_first] = -torch.inf
            feed = logits.argmax(-1, keepdim=True)  # (B, 1)
            for i, (token,) in enumerate(feed.tolist()):
                if not ended[i]:
                    out[i].append(token)
                    said = partial(self._text, out[i])
                    ended[i] = token == self.end or bounds[i].reached(len(out[i]), said)
            if all(ended):
                break
        return out

    def _text(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode([i for i in ids if i < self.end]).strip()


def load_decoder(
    name: str,
    features: Mapping[str, Any],
    device: str = "cpu",
    network: bool = True,
    language: str = "en",
) -> WhisperDecoder:
    """The decoder that belongs to the encoder of some features.

    Args:
        name: a folder or hub id, as for the encoder.
        features: the `fingerprint_config` of the shards.
        network: False takes what lies on this machine only.
        language: code of the one that is written down.

    Raises:
        OmniError: there is none here, it belongs to another encoder, or the features are not
            what a decoder reads.
    """
    weights = find_weights(name, decoder=True, network=network)
    encoder_tensors = {k: v for k, v in weights.tensors.items() if k.startswith("encoder.")}
    encoder = WhisperEncoder(weights.config, encoder_tensors, name, weights.source, device)
    if encoder.hash != features["encoder"]:
        raise OmniError(
            f"its encoder has hash {encoder.hash[:12]}, the features came from "
            f"{features['encoder'][:12]}",
            name,
            "name the encoder of the extraction with --encoder",
        )
    layer = _last_layer(features["layers"], encoder.n_layers)
    module = _build(weights, name).to(encoder.device, encoder.dtype)
    tokenizer = _tokenizer(name, weights, network)
    start, end = _prompt(tokenizer, module.config.vocab_size, name, language)
    silence = encoder.encode([np.zeros(WINDOW_SAMPLES, np.float32)])[0]
    return WhisperDecoder(
        module,
        tokenizer,
        silence,
        layer,
        start,
        end,
        _forbidden(weights.folder, _NEVER, module.config.vocab_size),
        _forbidden(weights.folder, _NOT_FIRST, module.config.vocab_size),
        weights.source,
    )


def _last_layer(layers: Any, n_layers: int) -> int | None:
    """Where the last layer lies among the stored ones."""
    if layers == "last":
        return None
    if n_layers in layers:
        return list(layers).index(n_layers)
    raise OmniError(
        f"the features are of layers {', '.join(map(str, layers))}, the decoder reads layer {n_layers}"
    )


def _build(weights: Weights, name: str) -> Any:
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperDecoder as Layers

    own = {
        key.removeprefix("decoder."): value.float()
        for key, value in weights.tensors.items()
        if key.startswith("decoder.")
    }
    if not own:
        raise OmniError("the weights hold no decoder", name)
    # The id that pads matters to training alone, and a config's default may lie beyond its table.
    fields: dict[str, Any] = {**weights.config, "pad_token_id": 0}
    config = WhisperConfig(**fields)
    with torch.device("meta"):
        module = Layers(config)
    try:
        module.load_state_dict(own, strict=True, assign=True)
    except RuntimeError as error:
        raise OmniError("the decoder's weights don't fit its config", name, str(error)) from error
    return module.requires_grad_(False).eval()


def _tokenizer(name: str, weights: Weights, network: bool) -> Any:
    """`tokenizer.json` beside the weights, or from the hub."""
    from tokenizers import Tokenizer

    file = weights.folder / "tokenizer.json"
    try:
        if not file.is_file() and network and not os.path.isdir(os.path.expanduser(name)):
            from huggingface_hub import hf_hub_download

            file = Path(hf_hub_download(name, "tokenizer.json"))
        return Tokenizer.from_file(str(file))
    except Exception as error:  # the hub and tokenizers raise whatever; here they are one
        raise OmniError(
            "no readable tokenizer.json for the decoder", str(file), f"{type(error).__name__}"
        ) from error


def _prompt(tokenizer: Any, vocab_size: int, name: str, language: str) -> tuple[list[int], int]:
    """Ids that ask for a transcript in that language without timestamps, and the id that ends it."""
    names = ["startoftranscript", language, "transcribe", "notimestamps"]
    if vocab_size == ENGLISH_ONLY_VOCABULARY:
        if language != "en":
            raise OmniError(f"an English-only Whisper writes no {language}", name)
        names = ["startoftranscript", "notimestamps"]
    ids = [tokenizer.token_to_id(f"<|{special}|>") for special in [*names, "endoftext"]]
    if any(i is None or i >= vocab_size for i in ids):
        missing = [n for n, i in zip(names, ids, strict=False) if i is None or i >= vocab_size]
        raise OmniError(
            f"the tokenizer lacks Whisper's special tokens ({', '.join(missing)})", name
        )
    return ids[:-1], ids[-1]


def _forbidden(folder: Path, names: tuple[str, str], vocab_size: int) -> list[int]:
    """Ids listed in the JSON files beside the weights; empty if there is no such list.

    Raises:
        OmniError: such a file is no JSON, or the list holds other things than ids.
    """
    for file in (folder / "generation_config.json", folder / "config.json"):
        content: Mapping[str, Any] = read_json(file, _Suppressed) if file.is_file() else {}
        for name in names:
            if content.get(name):
                return [i for i in content[name] if 0 <= i < vocab_size]
    return []


class _Suppressed(TypedDict):
    """The lists of `_NEVER` and `_NOT_FIRST`."""

    suppress_tokens: NotRequired[list[int] | None]
    suppress_ids: NotRequired[list[int] | None]
    begin_suppress_tokens: NotRequired[list[int] | None]
    suppress_ids_begin: NotRequired[list[int] | None]
