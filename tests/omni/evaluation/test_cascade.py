"""The cascade control: figures that mean what they say, a row or a line that says why there is none."""

import copy
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from speech_kit import tiny_whisper
from training_kit import save_lm, speech, tiny_lm, write_split

from cli import eval as cli_eval
from cli import train_projector
from omni.bridge.projector import build_projector
from omni.bridge.prompt import as_soft, build_row
from omni.bridge.turns import choose_template
from omni.errors import OmniError
from omni.evaluation.cascade import add_cascade, spell
from omni.evaluation.evaluate import evaluate
from omni.evaluation.verdict import cascade_verdict, selection_note
from omni.formats.shards import Sample
from omni.nanochat import load_checkpoint
from omni.whisper.encoder import load_encoder

SFT = choose_template({"kind": "sft"})
SAID = [
    "find the silver shovel by the garden at seven again",
    "move the green book under the bridge at four today",
]


def named(texts: Sequence[str]) -> list[Sample]:
    """Utterances of these texts whose features are noise."""
    samples = speech(len(texts))
    return [
        Sample(s.key, {**s.meta, "text": text, "text_norm": text}, s.features)
        for s, text in zip(samples, texts, strict=True)
    ]


def hears(texts: dict[int, str]) -> Callable[[Sequence[np.ndarray], int], list[str]]:
    """A recogniser that knows each utterance by its features."""

    def transcribe(features: Sequence[np.ndarray], batch_size: int) -> list[str]:
        assert batch_size > 0
        return [texts[x.tobytes()] for x in features]

    return transcribe


@pytest.fixture(scope="module")
def demo() -> tuple:
    """The demo LM, and figures of an untrained projector on two sentences it could repeat."""
    lm, tok, _ = load_checkpoint("demo")
    torch.manual_seed(0)
    projector = build_projector(d_in=16, n_embd=128, n_ve=lm.n_ve, kv_dim=lm.kv_dim, hidden=32)
    samples = named(SAID)
    return lm, tok, samples, evaluate(lm, tok, projector, samples, SFT)


def cascaded(demo: tuple, heard: Sequence[str], batch_size: int = 32) -> dict:
    lm, tok, samples, plain = demo
    figures = copy.deepcopy(plain)
    ear = hears({s.features.tobytes(): t for s, t in zip(samples, heard, strict=True)})
    add_cascade(figures, lm, tok, SFT, samples, ear, batch_size)
    return figures


def test_a_right_transcript_is_worth_more_than_a_wrong_one(demo: tuple) -> None:
    right = cascaded(demo, ["Find the silver shovel by the garden, at 7 again.", SAID[1]])
    wrong = cascaded(demo, SAID[::-1])
    empty = cascaded(demo, ["", ""])
    assert right["wer_cascade"] == 0
    assert right["ce_cascade"] < 0.2  # the demo LM repeats what its grammar can say
    assert wrong["ce_cascade"] > right["ce_cascade"] + 1
    assert wrong["wer_cascade"] > 0.5
    assert empty["wer_cascade"] == 1
    assert empty["ce_cascade"] == pytest.approx(empty["ce_none"], abs=1e-4)
    assert right["gap_cascade"] == pytest.approx(right["ce_cascade"] - right["ce"])
    assert right["gap_cascade"] < 0  # the projector is untrained
    assert "words are in the features" in cascade_verdict(right)


def test_figures_are_of_the_utterances_that_were_transcribed(demo: tuple) -> None:
    lm, tok, _, _ = demo
    samples = named([SAID[0], SAID[1], "set the red cup by the door at six now"])
    projector = build_projector(d_in=16, n_embd=128, n_ve=lm.n_ve, kv_dim=lm.kv_dim, hidden=32)
    figures = evaluate(lm, tok, projector, samples, SFT, decode_limit=2)
    ear = hears({s.features.tobytes(): "The red cup." for s in samples})
    add_cascade(figures, lm, tok, SFT, samples, ear)
    compared = [u for u in figures["utterances"] if "cascade" in u]
    assert {u["id"] for u in compared} == {e["id"] for e in figures["examples"]}
    assert len(compared) == 2
    tokens = sum(u["n_tokens"] for u in compared)
    for key in ("ce", "ce_cascade"):
        assert all(np.isfinite(u[key]) for u in compared)
    ces = [sum(u[key] * u["n_tokens"] for u in compared) / tokens for key in ("ce_cascade", "ce")]
    assert figures["ce_cascade"] == pytest.approx(ces[0])
    assert figures["gap_cascade"] == pytest.approx(ces[0] - ces[1])
    errors = sum(sum(u["errors_cascade"]) for u in compared)
    assert figures["wer_cascade"] == errors / sum(u["words"] for u in compared)
    for name in ("wer_cascade", "ce_cascade", "gap_cascade"):
        low, high = figures["intervals"][name]
        assert low <= figures[name] <= high
    json.dumps(figures)


def test_batches_change_nothing(demo: tuple) -> None:
    heard = ["Find it.", "Move the green book at four today, and then some more."]
    one, all_ = cascaded(demo, heard, 1), cascaded(demo, heard, 32)
    assert one["ce_cascade"] == pytest.approx(all_["ce_cascade"], abs=1e-4)


def test_the_row_is_the_one_that_text_alone_would_make(demo: tuple) -> None:
    """Transcript in the audio's place: the ids of the whole row, looked up at once."""
    lm, tok, _, _ = demo
    read = tok.encode(SAID[1])
    soft = as_soft(lm, [read, read[:3]])
    assert soft.lengths.tolist() == [len(read), 3]
    ve = None if soft.ve_rows is None else soft.ve_rows[0]
    row = build_row(lm, tok, soft.rows[0], ve, SAID[0], SFT)
    answer = [*tok.encode(SAID[0]), SFT.end(tok)]
    rows, ve_rows = lm.embed(torch.tensor([[*SFT.before(tok), *read, *SFT.after(tok), *answer]]))
    assert torch.equal(row.rows, rows[0])
    assert row.ve_rows is not None
    assert torch.equal(row.ve_rows, ve_rows[0])


def test_noise_in_which_nothing_is_said_has_no_wer(demo: tuple) -> None:
    lm, tok, _, _ = demo
    samples = named(["", ""])
    projector = build_projector(d_in=16, n_embd=128, n_ve=lm.n_ve, kv_dim=lm.kv_dim, hidden=32)
    figures = evaluate(lm, tok, projector, samples, SFT)
    ear = hears({s.features.tobytes(): "Thank you." for s in samples})
    add_cascade(figures, lm, tok, SFT, samples, ear)
    assert figures["ce_cascade"] > 0
    assert "wer_cascade" not in figures


@pytest.mark.parametrize(
    ("text", "alphabet", "written"),
    [
        ("Find the Silver Shovel, at 7.", "abc", "find the silver shovel at seven"),
        ("It’s 12 o'clock -- ill-disposed!", "abc'", "it's twelve o'clock ill disposed"),
        ("It's ill-disposed.", "abc", "its ill disposed"),
        ("Page 342, line 20; 1,850 of 007", "abc", "page three hundred forty two line twenty one eight hundred fifty of 007"),
        ("At 7, Mr. Dashwood.", "abc7.,", "at 7, mr. dashwood."),
        ("0 or 100 or 110", "abc", "zero or one hundred or one hundred ten"),
        ("Älter — ½", "abc", "älter ½"),
        (" ", "abc", ""),
    ],
)  # fmt: skip
def test_a_transcript_is_spelt_as_the_corpus_is(text: str, alphabet: str, written: str) -> None:
    assert spell(text, alphabet) == written


@pytest.mark.parametrize(
    ("wer", "plain", "words"),
    [
        (0.02, 0.2, "hears no less"),
        (0.7, 0.8, "hears no less"),
        (0.9, 0.6, "hard to read"),
        (0.9, 0.04, "words are in the features"),
    ],
)
def test_verdict(wer: float, plain: float, words: str) -> None:
    assert words in cascade_verdict({"wer": wer, "wer_cascade": plain})


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """int8 shards by a tiny Whisper, and a run of two steps on them."""
    root = tmp_path_factory.mktemp("place")
    encoder = load_encoder(str(tiny_whisper(root / "whisper")))
    rng = np.random.default_rng(0)
    config = {"encoder": encoder.hash, "layers": "last", "dtype": "int8", "window": "30"}
    for split, n, role in (("train-x", 8, "train"), ("dev-x", 4, "eval")):
        samples = speech(n, n, 100 * n)
        waves = [0.1 * rng.standard_normal(4000 + 700 * i).astype(np.float32) for i in range(n)]
        features = [encoder.encode([wave])[0].numpy() for wave in waves]
        samples = [
            Sample(s.key, {**s.meta, "n_samples": len(w), "n_frames": len(x)}, x)
            for s, w, x in zip(samples, waves, features, strict=True)
        ]
        write_split(root / "shards", split, samples, role=role, config=config)
    save_lm(root / "lm", tiny_lm())
    args = f"--shards {root}/shards --lm {root}/lm --runs {root}/runs --run a --steps 2 --hidden 32"
    args += " --batch-size 8 --decode-limit 0 --wandb disabled --warmup 1"
    assert train_projector.main(args.split()) == 0
    return root


def test_eval_prints_and_writes_the_cascade(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "figures.json"
    args = [f"{place}/runs/a", "--encoder", f"{place}/whisper", "--json", str(out)]
    assert cli_eval.main([*args, "--examples", "2", "--decode-limit", "3"]) == 0
    text = capsys.readouterr().out
    figures = json.loads(out.read_text())["dev-x"]
    assert figures["wer_cascade"] >= 1  # the tiny Whisper knows w0 to w49 only
    for words in ("WER, Whisper's own", "CE, Whisper's text", "gap: right against Whisper's"):
        assert words in text
    assert figures["cascade_verdict"] in text
    assert text.count("     Whisper: w") == 2
    assert sum("cascade" in u for u in figures["utterances"]) == 3


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ("", "no cascade: its encoder has hash"),  # the default encoder made none of this
        ("--encoder no/such", "no cascade: no source has the encoder"),
        ("--encoder {place}/whisper --decode-limit 0", "no cascade: nothing is transcr"),
    ],
)
def test_where_there_is_no_cascade_a_line_says_why(
    place: Path, capsys: pytest.CaptureFixture[str], args: str, words: str
) -> None:
    assert cli_eval.main([f"{place}/runs/a", *args.format(place=place).split()]) == 0
    text = capsys.readouterr().out
    assert words in text
    assert "CE, right audio" in text
    assert "Whisper's own" not in text


def test_off_is_off_and_a_cpu_is_not_kept_busy_unasked(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    args = [f"{place}/runs/a", "--encoder", f"{place}/whisper", "--device", "cpu", "--cascade"]
    monkeypatch.setattr(cli_eval, "AUTO_CASCADE", 3)
    assert cli_eval.main([*args, "off"]) == 0
    assert "cascade" not in capsys.readouterr().out
    assert cli_eval.main([*args, "auto"]) == 0
    assert "no cascade of dev-x: 4 transcripts take a CPU long" in capsys.readouterr().out
    assert cli_eval.main([*args, "on"]) == 0
    assert "WER, Whisper's own" in capsys.readouterr().out


@pytest.mark.parametrize(("checkpoint", "said"), [("best", True), ("last", False), ("init", False)])
def test_the_split_that_chose_the_checkpoint_says_so(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], checkpoint: str, said: bool
) -> None:
    out = tmp_path / "figures.json"
    args = [f"{place}/runs/a", "--cascade", "off", "--decode-limit", "0", "--json", str(out)]
    assert cli_eval.main([*args, "--checkpoint", checkpoint]) == 0
    line = (
        "dev-x chose this checkpoint among others, so its figures are a little too good; no other"
    )
    assert (line in capsys.readouterr().out) is said
    assert ("selection" in json.loads(out.read_text())["dev-x"]) is said


def test_the_splits_that_had_no_say_are_named() -> None:
    note = selection_note("dev-clean", ["dev-other", "test-clean"])
    assert note.endswith("had no say: dev-other, test-clean")


def test_the_language_comes_from_the_run_or_the_option(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def listen(*args: object, **_: object) -> None:
        asked.append(str(args[-2]))
        raise OmniError("enough")

    monkeypatch.setattr("omni.evaluation.evaluate.evaluate", listen)
    for extra in ([], ["--language", "fr-CA"]):
        assert cli_eval.main([f"{place}/runs/a", "--cascade", "off", *extra]) == 1
    assert asked == ["en", "fr"]
    with pytest.raises(SystemExit, match="2"):
        cli_eval.main(["x", "--language", "français"])
