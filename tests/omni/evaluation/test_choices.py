"""Four-option questions: scored as by hand, the same however they are batched, and not to be guessed.

.venv/bin/python -m pytest tests/omni/evaluation/test_choices.py
"""

import json
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from choices_kit import always_says, by_id, hear_perfectly, questions, small_projector, watch_scores
from share_kit import shared
from training_kit import chat_tokenizer, speech, tiny_lm

from omni.bridge.projector import Projector
from omni.bridge.turns import choose_template, letter_ids
from omni.errors import OmniError
from omni.evaluation.choice_controls import noise_like, spread_of, without_content
from omni.evaluation.choices import score_choices
from omni.formats.shards import Sample
from omni.formats.tasks import LETTERS, Task, question
from omni.nanochat.model import NanoChat
from omni.nanochat.tokenizer import Tokenizer

TOK = chat_tokenizer()
SFT = choose_template({"kind": "sft"})
SAMPLES = speech(12)
TASKS = questions(SAMPLES)
ALL = ("blind", "shuffled", "noise", "transcript")


def by_hand(
    lm: NanoChat, projector: Projector, frames: np.ndarray | None, middle: str, answer: str | None
) -> torch.Tensor:
    """Logits after, or log likelihood of the answer to, one question: no batch, no helper of ours."""
    s = TOK.special
    ids = [*TOK.encode(middle), s("user_end"), s("assistant_start")]
    head, v_head = lm.embed(torch.tensor([[s("bos"), s("user_start")]]))
    target = [] if answer is None else [*TOK.encode(answer), s("assistant_end")]
    tail, v_tail = lm.embed(torch.tensor([ids + target]))
    rows, values = [head, tail], [v_head, v_tail]
    if frames is not None:
        soft = projector(torch.from_numpy(frames)[None].float(), torch.tensor([len(frames)]))
        rows.insert(1, soft.rows)
        values.insert(1, soft.ve_rows)
    logits = lm.forward_embeds(torch.cat(rows, 1), torch.cat(values, 1))[0]
    if answer is None:
        return logits[-1]
    own = logits[-len(target) - 1 : -1].log_softmax(-1)
    return own[range(len(target)), target].sum()


def frames_of(task: Task, condition: str) -> np.ndarray | None:
    sample = by_id(SAMPLES)[task.id]
    spread = spread_of(sorted(SAMPLES, key=lambda s: s.meta["id"]))
    if condition == "noise":
        return noise_like(sample, spread)
    if condition == "prior":
        return without_content(sample, spread)
    return sample.features if condition == "right" else None


@torch.inference_mode()
def test_as_a_plain_reference_has_it() -> None:
    """Letters in each rotation, options' texts, the correction and two controls, one row at a time."""
    lm = tiny_lm(sequence_len=256)
    projector = small_projector(lm)
    got = score_choices(lm, TOK, projector, TASKS, by_id(SAMPLES), SFT, 8, controls=ALL)
    right: dict[str, list[list[bool]]] = {"right": [], "blind": [], "noise": [], "transcript": []}
    texts, corrected = [], []
    for told in got["questions"]:
        task = next(t for t in TASKS if t.id == told["id"])
        text = by_id(SAMPLES)[task.id].meta["text_norm"]
        for name, found in right.items():
            front = text if name == "transcript" else ""
            letters = []
            for r in range(4):
                logits = by_hand(
                    lm,
                    projector,
                    frames_of(task, name),
                    f"{front} {question(task, r).prompt}",
                    None,
                )
                letters.append(LETTERS[int(logits[letter_ids(TOK)].argmax())])
            found.append([letter == question(task, r).key for r, letter in enumerate(letters)])
            if name == "right":
                assert told["said"] == letters
        likely = [
            by_hand(lm, projector, frames_of(task, "right"), f" {task.prompt}", o)
            for o in task.options
        ]
        texts.append(int(torch.stack(likely).argmax()) == task.key)
        for r in range(4):
            prompt = f" {question(task, r).prompt}"
            one, two = (
                by_hand(lm, projector, frames_of(task, c), prompt, None) for c in ("right", "prior")
            )
            corrected.append(
                LETTERS[int((one - two)[letter_ids(TOK)].argmax())] == question(task, r).key
            )
    assert [told["right"] for told in got["questions"]] == right["right"]
    for name in ("blind", "noise", "transcript"):
        assert [told["controls"][name] for told in got["questions"]] == right[name], name
    assert [told["text_right"] for told in got["questions"]] == texts
    assert got["all"]["corrected"] == pytest.approx(np.mean(corrected))
    assert got["all"]["accuracy"] == pytest.approx(np.mean(right["right"]))
    assert 0 < np.mean(right["right"]) < 1, "the reference must be able to differ"


def test_batches_and_shares_change_nothing() -> None:
    lm = tiny_lm(sequence_len=256)
    projector = small_projector(lm)

    def work(share: object = None, size: int = 8) -> str:
        args = {} if share is None else {"share": share}
        found = score_choices(
            lm, TOK, projector, TASKS, by_id(SAMPLES), SFT, size, controls=ALL, **args
        )
        return json.dumps(found)

    alone = work()
    assert alone == work()
    assert alone == work(size=1)
    for mine in [*shared(2, work), *shared(3, work)]:
        assert mine == alone


def test_who_hears_everything_has_everything_right(monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing of it where it can't hear: there it says A, and is right once in four rotations."""
    lm = tiny_lm(sequence_len=256)
    samples = speech(40)
    hear_perfectly(monkeypatch, samples)
    tasks = questions(samples)
    got = score_choices(
        lm, TOK, small_projector(lm), tasks, by_id(samples), SFT, controls=ALL, texts=False
    )
    assert got["all"]["accuracy"] == got["all"]["strict"] == 1.0
    assert {*got["all"]["letters"]} == {0.25}
    assert "text" not in got["all"]
    for name in ("blind", "noise"):
        control = got["all"]["controls"][name]
        assert (control["accuracy"], control["strict"]) == (0.25, 0.0)
        assert control["mcnemar_p"] == pytest.approx(2 / 2**30)  # 30 of 40 are discordant
    assert got["all"]["controls"]["shuffled"]["accuracy"] <= 0.25
    assert got["words"]["n"] + got["voice"]["n"] == got["all"]["n"] == 40
    assert {*got["kinds"]} == {"content/first", "voice/pace"}
    assert got["alerts"] == []


@pytest.mark.parametrize("letter", range(4))
@pytest.mark.parametrize("keys", [None, 0, 3])
def test_a_habit_wins_nothing(
    monkeypatch: pytest.MonkeyPatch, letter: int, keys: int | None
) -> None:
    """Always A has a quarter right and nothing strictly, wherever the table has its keys."""
    lm = tiny_lm(sequence_len=256)
    projector = small_projector(lm)
    always_says(monkeypatch, lm, letter_ids(TOK)[letter])
    tasks = questions(SAMPLES, keys)
    got = score_choices(lm, TOK, projector, tasks, by_id(SAMPLES), SFT, texts=False)
    assert (got["all"]["accuracy"], got["all"]["strict"]) == (0.25, 0.0)
    assert got["all"]["letters"][letter] == 1.0
    assert {c["mcnemar_p"] for c in got["all"]["controls"].values()} == {1.0}
    assert bool(got["alerts"]) == (keys is not None)


def test_a_base_model_has_the_options_texts_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its tokenizer needs no letters: nothing trained them. Scored by hand, question by question."""
    lm, seen = tiny_lm(sequence_len=256), watch_scores(monkeypatch)
    base = choose_template({"kind": "base"})
    got = score_choices(lm, TOK, small_projector(lm), TASKS, by_id(SAMPLES), base, texts=False)
    assert got["all"]["scored"] == "text"
    assert got["all"]["accuracy"] == got["all"]["strict"] == got["all"]["text"]
    assert "letters" not in got["all"]
    assert "said" not in got["questions"][0]
    bos = TOK.special("bos")
    for told, found in zip(got["questions"], seen[0].texts["right"], strict=True):
        task = next(task for task in TASKS if task.id == told["id"])
        frames = torch.from_numpy(by_id(SAMPLES)[task.id].features)[None].float()
        soft = small_projector(lm)(frames, torch.tensor([frames.shape[1]]))
        likely = []
        for (
            option
        ) in task.options:  # [bos] audio, a blank and the question, a blank and the answer, [bos]
            target = [*TOK.encode(f" {option}"), bos]
            rest = [*TOK.encode(f" {task.prompt}"), *target]
            (head, v_head), (tail, v_tail) = (lm.embed(torch.tensor([x])) for x in ([bos], rest))
            rows = torch.cat([head, soft.rows, tail], 1)
            logits = lm.forward_embeds(rows, torch.cat([v_head, soft.ve_rows, v_tail], 1))[0]
            own = logits[-len(target) - 1 : -1].log_softmax(-1)
            likely.append(float(own[range(len(target)), target].sum().detach()))
        assert found == pytest.approx(likely, abs=1e-3)
        assert told["text_right"] == (likely.index(max(likely)) == task.key)


def test_what_fits_in_no_row_is_wrong() -> None:
    """Long options, in a short LM: the question stays in the denominator, for the controls too."""
    lm = tiny_lm(sequence_len=16)
    long = TASKS[0].options[0] * 60
    tasks = [*TASKS[1:], questions(SAMPLES[:1])[0]]
    tasks[-1] = Task(
        **{**vars(tasks[-1]), "options": (tasks[-1].answer, long, long + "s", long + "t")}
    )
    got = score_choices(
        lm, TOK, small_projector(lm), tasks, by_id(SAMPLES), SFT, controls=("blind",)
    )
    assert got["all"]["n"] == len(tasks)
    assert got["all"]["unanswered"] == pytest.approx(1 / len(tasks))
    told = next(q for q in got["questions"] if q["id"] == TASKS[0].id)
    assert told["right"] == told["controls"]["blind"] == [False] * 4
    assert told["said"] == [""] * 4
    assert told["text_right"] is False


def test_nothing_is_a_number_that_a_nan_could_win(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = tiny_lm(sequence_len=256)
    always_says(monkeypatch, lm, letter_ids(TOK)[0])
    say = lm.forward_embeds
    monkeypatch.setattr(lm, "forward_embeds", lambda *a, **k: say(*a, **k) * float("nan"))
    got = score_choices(lm, TOK, small_projector(lm), TASKS, by_id(SAMPLES), SFT)
    assert (got["all"]["accuracy"], got["all"]["text"], got["all"]["unanswered"]) == (0.0, 0.0, 1.0)


def test_the_cascade_reads_what_whisper_wrote() -> None:
    """Its row is the transcript's where Whisper errs in nothing, and is asked for each utterance once."""
    lm = tiny_lm(sequence_len=256)
    said = {s.features.tobytes(): s.meta["text_norm"] for s in SAMPLES}
    asked: list[int] = []

    def transcribe(features: Sequence[np.ndarray], batch_size: int) -> list[str]:
        asked.append(len(features))
        return [said[x.tobytes()].title() + "!" for x in features]

    got = score_choices(
        lm, TOK, small_projector(lm), [*TASKS, *_more(TASKS)], by_id(SAMPLES), SFT,
        controls=("cascade", "transcript"), transcribe=transcribe, texts=False,
    )  # fmt: skip
    controls = got["all"]["controls"]
    assert controls["cascade"] == controls["transcript"]
    assert asked == [len(SAMPLES)]
    assert list(controls) == ["cascade", "transcript"]


def _more(tasks: Sequence[Task]) -> list[Task]:
    return [Task(**{**vars(task), "prompt": "Which word opens it?"}) for task in tasks]


def test_a_limit_is_spread_evenly() -> None:
    lm = tiny_lm(sequence_len=256)
    got = score_choices(
        lm, TOK, small_projector(lm), TASKS, by_id(SAMPLES), SFT, limit=4, controls=(), texts=False
    )
    assert sorted(q["id"] for q in got["questions"]) == [TASKS[i].id for i in (0, 3, 6, 9)]


class _Split(Tokenizer):
    """A tokenizer to which a letter is two tokens."""

    def __init__(self) -> None:
        super().__init__(TOK._encoding)

    def encode(self, text: str) -> list[int]:
        return [1, 2] if text == "C" else super().encode(text)


def test_what_can_t_be_put_is_refused() -> None:
    lm = tiny_lm(sequence_len=256)
    projector = small_projector(lm)
    samples: dict[str, Sample] = by_id(SAMPLES)
    with pytest.raises(OmniError, match="letter C is 2 tokens"):
        score_choices(lm, _Split(), projector, TASKS, samples, SFT)
    with pytest.raises(OmniError, match=f"not there.*{TASKS[3].id}"):
        score_choices(
            lm, TOK, projector, TASKS, {k: s for k, s in samples.items() if k != TASKS[3].id}, SFT
        )
    open_ones = [Task(**{**vars(task), "options": ()}) for task in TASKS]
    with pytest.raises(OmniError, match="no question with options"):
        score_choices(lm, TOK, projector, open_ones, samples, SFT)
    with pytest.raises(OmniError, match="no control 'deaf'"):
        score_choices(lm, TOK, projector, TASKS, samples, SFT, controls=("blind", "deaf"))
    with pytest.raises(OmniError, match="cascade"):
        score_choices(lm, TOK, projector, TASKS, samples, SFT, controls=("cascade",))
