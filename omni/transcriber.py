"""Audio to text with a trained run: encoder, projector and frozen LM in one object.

The row is laid out by prompt.py and the features are rounded as the shards store them, so what the
LM hears here is what it heard in training. Must not know about files or the command line.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from omni.audio import SAMPLE_RATE
from omni.bridge.projector import Projector
from omni.bridge.prompt import Template
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
        waves: Sequence[np.ndarray],
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
        limit = self.chunk_seconds if chunk_seconds is None else chunk_seconds
        pieces = [cut_at_pauses(wave, limit) for wave in waves]
        flat = [piece for chunks in pieces for piece in chunks]
        # An LM that is given silence writes all the same: it is not asked.
        silent = [is_silent(piece) for piece in flat]
        heard = [i for i in range(len(flat)) if not silent[i]]
        ids: list[list[int]] = [[] for _ in flat]
        for begin in range(0, len(heard), batch_size):
            part = heard[begin : begin + batch_size]
            rows = decode(
                self.lm, self.tok, self.projector, self.features([flat[i] for i in part]),
                self.template, batch_size, max_new, sampling, self.encoder.frames_per_second,
            )  # fmt: skip
            for i, row in zip(part, rows, strict=True):
                ids[i] = row
        out, at = [], 0
        for wave, chunks in zip(waves, pieces, strict=True):
            mine, quiet = ids[at : at + len(chunks)], silent[at : at + len(chunks)]
            at += len(chunks)
            texts = [self.tok.decode(row).strip() for row in mine]
            frames = [frame_count(len(c)) for c, q in zip(chunks, quiet, strict=True) if not q]
            out.append(
                Transcript(
                    " ".join(text for text in texts if text),
                    [i for row in mine for i in row],
                    len(wave) / SAMPLE_RATE,
                    sum(self.projector.output_length(n) for n in frames),
                    len(chunks),
                )
            )
        return out

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
) -> Transcriber:
    """The models a run was trained with, each checked against the run's provenance.

    Args:
        which: the projector's checkpoint, "best", "last" or "init".
        lm: where the LM lies now, if it has moved; None takes the run's own path.
        encoder: a folder or hub id.

    Raises:
        OmniError: an LM or encoder with other weights than the run was trained with, or features
            computed by another version of this program.
    """
    frozen, tok, _ = load_checkpoint(lm or run.config["lm"], device)
    run.check_lm(frozen, lm or "")
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
