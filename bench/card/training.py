"""How fast a card trains a projector against a frozen nanochat, and what of its memory that takes.

The step is the product's own `train_step` with the recipe's losses; weights and frames are random.
Must not know shards.
"""

from collections.abc import Iterator
from dataclasses import replace

import torch

from bench.card.rows import Budget, Row, seconds
from omni.bridge.projector import Projector, build_projector
from omni.bridge.turns import choose_template
from omni.errors import brief
from omni.nanochat import NanoChat, random_init
from omni.nanochat.build import cast_matrices
from omni.nanochat.checkpoint import load_checkpoint
from omni.nanochat.config import NanoChatConfig
from omni.nanochat.memory import Recipe, Rows, parameter_groups, training_memory
from omni.nanochat.tokenizer import Tokenizer
from train.options import TrainOptions
from train.step import Trainee, make_optimizer, train_step
from train.stream import START, Packed

PART = "Training step"
STEPS_OF_A_RUN = 8000
FRAMES, TEXT = 635, "four score and seven years ago our fathers brought forth"  # 12.7 s, its mean


def measure(
    device: torch.device,
    budget: Budget,
    configs: dict[str, NanoChatConfig],
    peak: float,
    batch: int = TrainOptions.batch_size,
) -> Iterator[Row]:
    """Rows for each model: time, tokens and operations a second, peak memory beside the computed.

    Args:
        configs: sizes by name.
        peak: operations a second of a matrix product on this device.
        batch: utterances a step, the recipe's.
    """
    share = max(budget.left, 0) / len(configs)
    for name, config in configs.items():
        try:
            yield from _one(name, config, device, Budget.of(share), peak, batch)
        except Exception as error:  # out of memory, a kernel that is missing: a row that says why
            why = brief(error)
            yield Row(PART, f"{name}, batch {batch}", None, "s", why)
        if device.type == "cuda":
            torch.cuda.empty_cache()


def random_lm(config: NanoChatConfig, device: torch.device) -> NanoChat:
    """Frozen, in the dtype that the product computes in on this device."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    return cast_matrices(random_init(config), dtype).freeze().to(device)


def text_of(tok: Tokenizer, n_tokens: int = 50) -> str:
    """A transcript of about so many tokens: LibriSpeech's mean in a vocabulary of 32,768."""
    words, said = (TEXT.split() * 20), ""
    for word in words:
        if len(tok.encode(f"{said} {word}".strip())) > n_tokens:
            break
        said = f"{said} {word}".strip()
    return said


def _one(
    name: str,
    config: NanoChatConfig,
    device: torch.device,
    budget: Budget,
    peak: float,
    batch: int,
) -> Iterator[Row]:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    trainee, packed = _prepare(config, device, batch)
    taken = seconds(lambda: train_step(trainee, packed, 1e-4), device, budget)
    n_soft = -(-FRAMES // trainee.projector.stack)
    length = n_soft + len(trainee.template.before(trainee.tok))
    length += len(trainee.template.after(trainee.tok))
    n_text = len(trainee.tok.encode(packed.texts[0])) + 1
    positions = batch * (length + n_text)
    flops = step_flops(config, positions, batch * n_text, trainee.projector, batch * n_soft)
    what = f"{name}, batch {batch}"
    yield Row(PART, f"{what}, a step", taken, "s", f"{positions} positions")
    yield Row(PART, f"{what}, positions", positions / taken, "1/s", "soft tokens and text")
    yield Row(PART, f"{what}, MFU", 100 * flops / taken / peak, "%", "of the matrix product")
    hours = STEPS_OF_A_RUN * taken / 3600
    yield Row(PART, f"{what}, {STEPS_OF_A_RUN} steps", hours, "h", "computed, if data keeps up")
    if device.type != "cuda":
        return
    got = torch.cuda.max_memory_allocated(device)
    rows = Rows(batch, length + n_text - 1, n_soft, n_text)
    model = training_memory(config, rows, Recipe(ctc=trainee.ctc > 0))
    yield Row(PART, f"{what}, peak memory", got / 1e9, "GB", f"computed {model.total / 1e9:.2f} GB")


def _prepare(config: NanoChatConfig, device: torch.device, batch: int) -> tuple[Trainee, Packed]:
    """The recipe's trainee on a random LM, and a batch of equal utterances."""
    options = TrainOptions()
    _, tok, meta = load_checkpoint("demo", "cpu")
    lm = random_lm(replace(config, vocab_size=max(config.vocab_size, tok.vocab_size)), device)
    projector = build_projector(
        options.projector, d_in=512, n_embd=config.n_embd, n_ve=lm.n_ve, kv_dim=lm.kv_dim,
        stack=options.stack, hidden=options.hidden,
    ).to(device)  # fmt: skip
    trainee = Trainee(
        lm, tok, projector, choose_template(meta), make_optimizer(projector, options.lr),
        options.micro_batch_size or batch, options.clip, options.ctc_weight,
    )  # fmt: skip
    features = torch.randn(batch, FRAMES, 512, generator=torch.Generator().manual_seed(0)).half()
    keys = [f"utterance-{i}" for i in range(batch)]
    lengths = torch.full((batch,), FRAMES)
    packed = Packed(features, lengths, [text_of(tok)] * batch, keys, START, START, batch)
    return trainee, packed


def step_flops(
    config: NanoChatConfig, positions: int, supervised: int, projector: Projector, n_soft: int
) -> float:
    """Operations of a step, two for a multiplication and an addition.

    Of the frozen LM 2 a weight and position forward and 2 backward, for its weights get no
    gradient; of lm_head the same at supervised positions; of the projector 6 a weight and soft
    token. Attention's own products are left out: under 5 % at these lengths.
    """
    groups = parameter_groups(config)
    body = groups["attention"] + groups["mlp"]
    own = sum(p.numel() for p in projector.parameters())
    return 4.0 * body * positions + 4.0 * groups["lm_head"] * supervised + 6.0 * own * n_soft
