"""A training step as it would run on a card: dtypes, and nobody waiting for values. No card needed.

.venv/bin/python -m pytest tests/train/test_step_on_a_card.py
"""

from collections.abc import Iterator

import pytest
import torch
from fake_cuda import Operations, fake_cuda
from step_kit import make_trainee, pack
from torch._subclasses.fake_tensor import FakeTensor
from training_kit import chat_tokenizer

import train.step
from omni.bridge.projector import build_projector
from omni.bridge.turns import choose_template
from omni.nanochat.config import NanoChatConfig
from omni.nanochat.eras import ERAS
from omni.nanochat.model import NanoChat
from train.step import Trainee, backward, make_optimizer, train_step

CONFIG = NanoChatConfig(128, 265, 2, 2, 1, 64, "SL")
NORMS = ("_fused_rms_norm", "rms_norm")


def stand_in(
    log_p: torch.Tensor, targets: torch.Tensor, n_in: torch.Tensor, n_out: torch.Tensor, **_: object
) -> torch.Tensor:
    """For CTC, which knows no fake tensors. Its lengths belong on the host: CUDA's kernel would
    fetch them, and wait."""
    assert n_in.device.type == n_out.device.type == "cpu"
    assert log_p.device == targets.device
    return log_p.sum()


@pytest.fixture
def step(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Trainee, Operations]]:
    """A trainee on a fake card, its LM in bf16, with the recipe's CTC loss. What the host knows of
    a batch is made outside: there even a CPU's tensors hold no values."""
    host, packed = make_trainee(), pack()
    cuts = [slice(i, min(i + n, 7)) for n in (2, 4) for i in range(0, 7, n)]
    parts = {(at.start, at.stop): train.step._host(host, packed, at) for at in cuts}
    monkeypatch.setattr("train.ctc.F.ctc_loss", stand_in)
    monkeypatch.setattr(train.step, "_host", lambda _t, _p, at, _alone: parts[at.start, at.stop])
    with fake_cuda() as operations:
        with torch.device("cuda"):
            lm = NanoChat(CONFIG, ERAS["E"]).freeze()
            sizes = {"n_embd": 64, "n_ve": lm.n_ve, "kv_dim": lm.kv_dim, "hidden": 48}
            projector = build_projector(d_in=16, **sizes)
        for name, p in list(lm.named_parameters()):
            if p.ndim > 1:  # as cast_matrices does, which fake tensors don't take
                module, _, last = name.rpartition(".")
                half = torch.nn.Parameter(p.detach().bfloat16(), requires_grad=False)
                setattr(lm.get_submodule(module), last, half)
        lm.cos, lm.sin = lm.cos.to("cuda"), lm.sin.to("cuda")
        template = choose_template({"kind": "sft"})
        trainee = Trainee(
            lm, chat_tokenizer(), projector, template, make_optimizer(projector, 1e-3), 4, ctc=1.0
        )
        yield trainee, operations


def test_nothing_of_a_step_waits_for_the_device(step: tuple[Trainee, Operations]) -> None:
    """Two micro-batches with CTC: a value that is asked for would fail."""
    trainee, _ = step
    sums = backward(trainee, pack())
    assert sums.shape == (7,)


def test_a_step_asks_once(
    step: tuple[Trainee, Operations], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainee, _ = step
    asked = []

    def values(tensor: torch.Tensor) -> list[float]:
        if tensor.device.type == "cuda":
            asked.append(tensor.numel())
            return [1.0] * tensor.numel()
        return real(tensor)

    real = FakeTensor.tolist
    monkeypatch.setattr(FakeTensor, "tolist", values)
    train_step(trainee, pack(), 1e-3)
    assert asked == [8]


def test_the_lm_computes_in_its_own_dtype(step: tuple[Trainee, Operations]) -> None:
    """Squares of the MLP and norms in bf16: under autocast both would pass through fp32, twice the
    bytes of what the backward pass keeps."""
    trainee, operations = step
    backward(trainee, pack())
    squares = [op for op in operations.seen if op.name == "pow" and op.shape[-1:] == (4 * 64,)]
    assert squares
    assert {op.dtype for op in squares} == {torch.bfloat16}
    # Attention's norms of q and k, heads of 32; no norm of the projector has that width.
    norms = [op for op in operations.seen if op.name in NORMS and op.shape[-1:] == (32,)]
    assert {op.dtype for op in norms} == {torch.bfloat16}


@pytest.mark.parametrize("name", ["mlp", "conv", "linear"])
def test_a_projectors_norms_take_one_kernel_each(name: str) -> None:
    """An input in bf16 beside a weight in fp32 would leave torch's fused kernel for eight others."""
    with fake_cuda() as operations:
        with torch.device("cuda"):
            projector = build_projector(name, d_in=16, n_embd=64, hidden=48)
            x, lengths = torch.empty(2, 9, 16), torch.tensor([9, 4])
        norms = [m for m in projector.modules() if isinstance(m, torch.nn.RMSNorm)]
        for dtype in (torch.bfloat16, torch.float16):
            operations.seen.clear()
            with torch.autocast("cuda", dtype):
                rows = projector(x, lengths).rows
            assert rows.dtype == dtype
            # The kernel's second output is its statistics: (..., 1).
            fused = [
                op for op in operations.seen if op.name == "_fused_rms_norm" and op.shape[-1] > 1
            ]
            assert [op.dtype for op in fused] == [torch.float32] * len(norms)
            assert not [op.name for op in operations.seen if op.name in ("pow", "rsqrt")]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_the_projector_computes_in_the_dtype_of_the_lm(
    dtype: torch.dtype, step: tuple[Trainee, Operations]
) -> None:
    trainee, operations = step
    for name, p in list(trainee.lm.named_parameters()):
        if p.ndim > 1:
            module, _, last = name.rpartition(".")
            cast = torch.nn.Parameter(p.detach().to(dtype), requires_grad=False)
            setattr(trainee.lm.get_submodule(module), last, cast)
    backward(trainee, pack())
    # Not bmm: where nobody chooses a kernel, attention computes in fp32.
    products = [op for op in operations.seen if op.name in ("mm", "addmm")]
    assert {op.dtype for op in products} == {dtype}


def test_the_table_of_ctc_is_made_once_and_no_value_table_with_it(
    step: tuple[Trainee, Operations],
) -> None:
    trainee, operations = step
    trainee.micro = 2  # four micro-batches
    backward(trainee, pack())
    backward(trainee, pack())
    whole = (CONFIG.vocab_size, CONFIG.n_embd)
    assert sum(op.shape == whole and op.name in NORMS for op in operations.seen) == 1
    looked_up = [op.shape[:-1] for op in operations.seen if op.name == "embedding"]
    assert looked_up.count((CONFIG.vocab_size,)) == 1
