"""One step: its gradient depends on the batch alone, and only the projector moves."""

import itertools
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from places import KITS
from step_kit import gradients, make_trainee, pack
from training_kit import chat_tokenizer, tiny_lm

from omni.errors import OmniError
from train.ctc import ctc_loss, token_directions, unserved
from train.step import backward, learning_rate, train_step


def test_micro_batches_change_no_gradient() -> None:
    whole, parts = make_trainee(micro=7), make_trainee(micro=2)
    a, b = backward(whole, pack()), backward(parts, pack())
    torch.testing.assert_close(a[:5], b[:5])  # but for padding, which is what they save
    torch.testing.assert_close(gradients(whole), gradients(parts), rtol=1e-4, atol=1e-7)


def test_checkpointed_activations_change_no_gradient() -> None:
    plain, twice = make_trainee(), make_trainee()
    twice.lm.activation_checkpointing = True
    backward(plain, pack())
    backward(twice, pack())
    torch.testing.assert_close(gradients(plain), gradients(twice))


def test_loss_is_the_mean_over_target_tokens_not_over_utterances() -> None:
    trainee = make_trainee()
    one_by_one = [backward(trainee, pack(i, 7)) for i in range(7)]
    nll = sum(s[0] for s in one_by_one)
    tokens = sum(s[2] for s in one_by_one)
    figures = train_step(trainee, pack(), 1e-3)
    assert figures.loss == pytest.approx((nll / tokens).item(), rel=1e-5)
    assert figures.n_tokens == tokens == sum(len(t) + 1 for t in pack().texts)


def test_only_the_projector_moves() -> None:
    trainee = make_trainee()
    lm, before = trainee.lm.fingerprint(), [p.clone() for p in trainee.projector.parameters()]
    train_step(trainee, pack(), 1e-2)
    assert trainee.lm.fingerprint() == lm
    assert all(p.grad is None for p in trainee.lm.parameters())
    learned = {id(p) for p in trainee.projector.parameters() if p.requires_grad}
    assert {id(p) for g in trainee.optimizer.param_groups for p in g["params"]} == learned
    moved = [
        not torch.equal(a, b) for a, b in zip(before, trainee.projector.parameters(), strict=True)
    ]
    assert all(moved[1:])  # the first is the mix of a single layer


def test_repeated_steps_fit_a_batch() -> None:
    trainee = make_trainee()
    losses = [train_step(trainee, pack(), 1e-2).loss for _ in range(30)]
    assert losses[-1] < losses[0] - 0.5


def test_a_loss_that_is_not_finite_names_the_batch_and_changes_nothing() -> None:
    trainee = make_trainee()
    before = [p.clone() for p in trainee.projector.parameters()]
    packed = pack()
    packed.features[2, 3, 4] = float("inf")
    with pytest.raises(OmniError, match=r"loss nan.*pass 0, batch 0: ann-0000"):
        train_step(trainee, packed, 1e-3)
    assert all(
        torch.equal(a, b) for a, b in zip(before, trainee.projector.parameters(), strict=True)
    )


def test_ctc_is_the_likelihood_of_all_alignments() -> None:
    """Two soft tokens, one character: its alignments can be counted by hand."""
    lm, tok = tiny_lm(), chat_tokenizer()
    rows = torch.randn(1, 2, 64, requires_grad=True)
    loss = ctc_loss(token_directions(lm), rows, [2], [tok.encode("a")])
    table = torch.nn.functional.rms_norm(lm.embed(torch.arange(265)[None])[0][0], (64,))
    cosine = torch.nn.functional.cosine_similarity(rows[0][:, None], table[None], dim=-1)
    scores = torch.cat([cosine, torch.full((2, 1), 0.5)], 1) * 2 * 64**0.5
    p = scores.softmax(-1)
    a, blank = ord("a"), 265
    both = p[0, a] * p[1, a] + p[0, a] * p[1, blank] + p[0, blank] * p[1, a]
    torch.testing.assert_close(loss, -both.log(), rtol=1e-4, atol=1e-4)
    loss.backward()
    assert rows.grad.abs().max() > 0


@pytest.mark.parametrize(
    ("text", "n_soft", "left_out"),
    [("abc", 2, 1), ("abc", 3, 0), ("aa", 2, 1), ("aa", 3, 0), ("abba", 4, 1), ("", 1, 0)],
)
def test_rows_that_ctc_cannot_serve_are_counted(text: str, n_soft: int, left_out: int) -> None:
    """Equal neighbours need a blank between them. What is not counted has a finite loss above 0."""
    tok, directions = chat_tokenizer(), token_directions(tiny_lm())
    ids = [tok.encode(text), tok.encode("a")]
    assert unserved(ids, [n_soft, n_soft]) == left_out
    alone = ctc_loss(directions, torch.randn(1, n_soft, 64), [n_soft], ids[:1])
    assert (alone == 0) == bool(left_out)


def test_a_step_says_how_many_rows_ctc_could_not_serve() -> None:
    trainee = make_trainee(micro=2)
    packed = pack()._replace(texts=["a", "b" * 90, "c", "d" * 90, "e" * 90, "f", "g"])
    assert train_step(trainee, packed, 1e-3).n_unserved == 0  # no CTC, nothing to serve
    trainee.ctc = 0.5
    assert train_step(trainee, packed, 1e-3).n_unserved == 3


def test_ctc_weight_changes_the_gradient_and_not_the_figures() -> None:
    plain, weighted = make_trainee(), make_trainee()
    weighted.ctc = 0.5
    packed = pack()._replace(texts=["ab"] * 7)  # bytes of the real texts outnumber the audio
    torch.testing.assert_close(backward(plain, packed), backward(weighted, packed))
    assert not torch.allclose(gradients(plain), gradients(weighted))


def test_schedule_warms_up_and_ends_at_a_tenth() -> None:
    rates = [learning_rate(s, 1.0, 10, 100) for s in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == rates[10] == 1.0
    assert rates[55] == pytest.approx(0.55)
    assert rates[-1] == pytest.approx(0.1, abs=1e-3)
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))


RANK_SCRIPT = """
import sys
import torch, torch.distributed as dist
sys.path.insert(0, sys.argv[1])
from step_kit import make_trainee, pack, gradients
from train.step import backward
torch.set_num_threads(1)
dist.init_process_group("gloo")
rank, world = dist.get_rank(), dist.get_world_size()
trainee = make_trainee(2, torch.float64)
sums = backward(trainee, pack(rank, world, int(sys.argv[3])))
torch.save({"sums": sums, "gradients": gradients(trainee)}, f"{sys.argv[2]}/rank{rank}.pt")
dist.barrier()
dist.destroy_process_group()
"""


@pytest.mark.slow
@pytest.mark.parametrize("n", [7, 1])  # 1: the second rank's share is empty
def test_two_ranks_have_the_gradient_of_one(tmp_path: Path, n: int) -> None:
    script = tmp_path / "rank.py"
    script.write_text(RANK_SCRIPT)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    here = str(KITS)
    subprocess.run([*torchrun, str(script), here, str(tmp_path), str(n)], check=True, timeout=300)
    alone = make_trainee(8, torch.float64)
    sums = backward(alone, pack(n=n))
    for rank in range(2):
        got = torch.load(tmp_path / f"rank{rank}.pt", weights_only=True)
        torch.testing.assert_close(got["sums"][:5], sums[:5], rtol=1e-6, atol=0)
        error = (got["gradients"] - gradients(alone)).norm() / gradients(alone).norm()
        assert error < 1e-6
