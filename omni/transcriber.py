"""Audio to text with a trained run: encoder, projector and frozen LM in one object.

The row is laid out by prompt.py and the features are rounded as the shards store them, so what the
LM hears here is what it heard in training. Must not know about files or the command line.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from omni.audio import SAMPLE_RATE
from omni.bridge.projector import Projector
from omni.bridge.turns import Template
from omni.device import pick_dtype
from omni.encoder import DEFAULT_ENCODER
from omni.errors import OmniError
from omni.evaluation.decode import GREEDY, Sampling, decode
from omni.nanochat import NanoChat, Tokenizer, load_checkpoint
from omni.runs import Run
from omni.whisper.encoder import TRIM_VERSION, Layers, WhisperEncoder, frame_count, load_encoder
from omni.whisper.mel import MEL_VERSION
from omni.whisper.window import EXACT, Window, window_from_config

CHUNK_SECONDS = 30.0  # Whisper's window, and about the longest utterance of LibriSpeech
SEARCH_SECONDS = 5.0  # how far before a chunk's end a pause is looked for
PAUSE_SECONDS = 0.2  # the stretch whose loudness is compared
SILENCE_LEVEL = 1e-4  # of full scale, -80 dBFS: what is quieter throughout is not decoded
SILENCE_SECONDS = 0.05  # the stretch whose loudness counts: about a vowel


@dataclass(frozen=True)
class Transcript:
    """What the LM heard in one recording.

    ids: the tokens, end token left out, chunk after chunk. n_soft: soft tokens the LM was given.
    chunks: pieces the recording was cut into, silent ones too, which the LM was not given.
    seconds: its length.
    """

    text: str
    ids: list[int]
    seconds: float
    n_soft: int
    chunks: int


@dataclass
class _Begun:
    """A recording on its way. ids: tokens by piece; left: pieces that are not decoded yet."""

    seconds: float
    ids: list[list[int]]
    n_soft: int = 0
    left: int = 0


class _Waiting(NamedTuple):
    """A piece that waits for its batch to fill."""

    wave: np.ndarray
    recording: _Begun
    place: int


class Transcriber:
    """The three models of a run, ready to listen.

    Args:
        layers: the encoder layers that the run's features hold.
        chunk_seconds: longest piece that is given to the LM in one row, unless a call says else.
        window: of the run's features.
    """

    def __init__(
        self,
        encoder: WhisperEncoder,
        projector: Projector,
        lm: NanoChat,
        tok: Tokenizer,
        template: Template,
        layers: Layers = "last",
        chunk_seconds: float = CHUNK_SECONDS,
        window: Window = EXACT,
    ) -> None:
        self.encoder, self.projector, self.lm = encoder, projector, lm
        self.tok, self.template, self.layers = tok, template, layers
        self.chunk_seconds, self.window = chunk_seconds, window

    def __call__(
        self,
        waves: Iterable[np.ndarray],
        chunk_seconds: float | None = None,
        max_new: int | None = None,
        sampling: Sampling = GREEDY,
        batch_size: int = 8,
    ) -> list[Transcript]:
        """Transcripts of recordings, in the given order.

        Args:
            waves: float32 (n,) each, 16 kHz mono, n >= 1.
            chunk_seconds: a longer recording is cut at its pauses into pieces of at most this;
                None takes the object's own.
            max_new: cap on tokens for each piece; None lets it follow the piece's length.
            batch_size: pieces that are decoded together.
        """
        return list(self.stream(waves, chunk_seconds, max_new, sampling, batch_size))

    def stream(
        self,
        waves: Iterable[np.ndarray],
        chunk_seconds: float | None = None,
        max_new: int | None = None,
        sampling: Sampling = GREEDY,
        batch_size: int = 8,
    ) -> Iterator[Transcript]:
        """As a call, each transcript as soon as it is whole.

        A recording is asked for when those before it no longer fill a batch, so that no more than
        one is held, and of those before it what waits for its batch.
        """
        limit = self.chunk_seconds if chunk_seconds is None else chunk_seconds
        begun: deque[_Begun] = deque()
        waiting: list[_Waiting] = []
        for wave in waves:
            pieces = cut_at_pauses(wave, limit)
            recording = _Begun(len(wave) / SAMPLE_RATE, [[] for _ in pieces])
            begun.append(recording)
            for place, piece in enumerate(pieces):
                # An LM that is given silence writes all the same: it is not asked.
                if is_silent(piece):
                    continue
                recording.left += 1
                recording.n_soft += self.projector.output_length(frame_count(len(piece)))
                waiting.append(_Waiting(piece, recording, place))
                if len(waiting) == batch_size:
                    self._decode(waiting, max_new, sampling)
                    waiting = []
            # What waits must not hold on to the hour that it was cut from.
            waiting = [w._replace(wave=w.wave.copy()) for w in waiting]
            del wave, pieces, piece  # a piece is a view of all of it
            yield from self._whole(begun)
        if waiting:
            self._decode(waiting, max_new, sampling)
        yield from self._whole(begun)

    def _decode(self, waiting: list[_Waiting], max_new: int | None, sampling: Sampling) -> None:
        """One batch; hands each recording its tokens."""
        rows = decode(
            self.lm, self.tok, self.projector, self.features([w.wave for w in waiting]),
            self.template, len(waiting), max_new, sampling, self.encoder.frames_per_second,
        )  # fmt: skip
        for w, row in zip(waiting, rows, strict=True):
            w.recording.ids[w.place] = row
            w.recording.left -= 1

    def _whole(self, begun: deque[_Begun]) -> Iterator[Transcript]:
        """Take off the recordings in front that wait for nothing."""
        while begun and not begun[0].left:
            done = begun.popleft()
            texts = [self.tok.decode(row).strip() for row in done.ids]
            yield Transcript(
                " ".join(text for text in texts if text),
                [i for row in done.ids for i in row],
                done.seconds,
                done.n_soft,
                len(done.ids),
            )

    def features(self, waves: Sequence[np.ndarray]) -> list[np.ndarray]:
        """float16 (T, d) or (L, T, d) of each recording, as a shard would hold them."""
        encoded = self.encoder.encode(waves, self.layers, self.window)
        return [f.half().cpu().numpy() for f in encoded]


def load_transcriber(
    run: Run,
    which: str = "best",
    lm: str | None = None,
    encoder: str = DEFAULT_ENCODER,
    device: str = "cpu",
    lm_dtype: str = "auto",
    lora_scale: float = 1.0,
) -> Transcriber:
    """The models a run was trained with, each checked against the run's provenance.

    Args:
        which: the projector's checkpoint, "best", "last" or "init".
        lm: where the LM lies now, if it has moved; None takes the run's own path.
        encoder: a folder or hub id.
        lm_dtype: as `pick_dtype` takes it.
        lora_scale: of the run's adapters, where it has any.

    Raises:
        OmniError: an LM or encoder with other weights than the run was trained with, or features
            computed by another version of this program.
    """
    frozen, tok, _ = load_checkpoint(
        lm or run.config["lm"], device, dtype=pick_dtype(lm_dtype, device)
    )
    run.check_lm(frozen, lm or "")
    run.wear(frozen, which, lora_scale)
    features = run.provenance["fingerprint_config"]
    whisper = load_encoder(encoder, device)
    if whisper.hash != features["encoder"]:
        raise OmniError(
            f"the encoder has hash {whisper.hash[:12]}, the run's features came from "
            f"{features['encoder'][:12]}",
            where=encoder,
            mend="give the encoder of the extraction with --encoder",
        )
    ours = {"mel": MEL_VERSION, "trim": TRIM_VERSION}
    for name, value in ours.items():
        if features.get(name) != value:
            raise OmniError(
                f"the run's features have {name} {features.get(name)!r}, this program makes "
                f"{value!r}",
                where=str(run.path),
                mend="extract and train again, or use the version that made them",
            )
    window = window_from_config(features.get("window"), str(run.path))
    template = Template(**run.config["template"])
    projector = run.projector(which, device)
    # A projector is deaf to what lies beyond the longest row it was trained on.
    longest = min(run.provenance.get("longest_seconds", CHUNK_SECONDS), CHUNK_SECONDS)
    layers = features["layers"]
    return Transcriber(whisper, projector, frozen, tok, template, layers, longest, window)


def is_silent(wave: np.ndarray) -> bool:
    """Whether a piece (n,) holds nothing that could be speech: every 50 ms below -80 dBFS.

    That is 3 steps of a 16-bit recording (rms, without its constant part): the dither and hiss of an
    idle input, and digital zeros. Speech 60 dB below its usual level is louder at its vowels.
    """
    window = int(SILENCE_SECONDS * SAMPLE_RATE)
    for begin in range(0, len(wave), window):
        if float(np.std(wave[begin : begin + window], dtype=np.float64)) > SILENCE_LEVEL:
            return False
    return True


def cut_at_pauses(wave: np.ndarray, seconds: float = CHUNK_SECONDS) -> list[np.ndarray]:
    """A recording (n,) in pieces of at most `seconds`, cut where the end of each is quietest."""
    limit = max(int(seconds * SAMPLE_RATE), 2 * int(PAUSE_SECONDS * SAMPLE_RATE))
    window = int(PAUSE_SECONDS * SAMPLE_RATE)
    out = []
    while len(wave) > limit:
        first = max(limit - int(SEARCH_SECONDS * SAMPLE_RATE), limit // 2)
        power = np.cumsum(wave[first:limit].astype(np.float64) ** 2)
        at = first + int(np.argmin(power[window:] - power[:-window])) + window // 2
        out.append(wave[:at])
        wave = wave[at:]
    return [*out, wave]
