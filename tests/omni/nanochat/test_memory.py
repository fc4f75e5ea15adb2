"""The model of a training's memory against the real step: what autograd keeps, and the peak.

.venv/bin/python -m pytest tests/omni/nanochat/test_memory.py
"""

import pytest
import torch
from fake_cuda import fake_cuda
from nanochat_kit import CONFIG
from places import ROOT
from torch import nn
from training_kit import chat_tokenizer

import train.step
from bench.memory import (
    Case,
    cards_table,
    kept_by_autograd,
    make_case,
    parts_table,
    peak_on_a_cpu,
)
from omni.bridge.projector import build_projector
from omni.bridge.turns import choose_template, lay_out
from omni.nanochat import NanoChat, NanoChatConfig
from omni.nanochat.eras import ERAS
from omni.nanochat.lora import TARGETS, Lora
from omni.nanochat.memory import (
    ProjectorSizes,
    Recipe,
    Rows,
    adapter_parameters,
    depth_config,
    largest_batch,
    parameter_groups,
    training_memory,
)
from train.step import Trainee, backward, make_optimizer, train_step
from train.stream import START, Packed

TOK = chat_tokenizer()
SMALL = ProjectorSizes("mlp", 48, 4, 96)
CPU = Recipe(SMALL, element=4, card=False)
TEXT = "the cup is red and blue near the door"


def config(kv: int = 4, layers: int = 4, window: str = "L", vocab: int = 0) -> NanoChatConfig:
    return NanoChatConfig(512, vocab or TOK.vocab_size, layers, 4, kv, 128, window)


def case(recipe: Recipe = CPU, sizes: NanoChatConfig | None = None, **more: object) -> Case:
    torch.manual_seed(0)
    return make_case(sizes or config(), recipe, tok=TOK, **{"text": TEXT, "batch": 3, **more})


def but(**changes: object) -> Recipe:
    return Recipe(**{**vars(CPU), **changes})


@pytest.mark.parametrize("era", list("ABCDE"))
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("kv", [1, 4])
def test_it_is_what_autograd_keeps_of_a_real_step(era: str, checkpointing: bool, kv: int) -> None:
    found = case(but(checkpointing=checkpointing), config(kv), seconds=8.0, era=era)
    assert found.computed.kept == pytest.approx(kept_by_autograd(found), rel=0.01)


@pytest.mark.parametrize(
    "recipe",
    [
        but(ctc=False),
        but(ctc=False, checkpointing=True),
        *(but(projector=ProjectorSizes(name, 48, 4, 96)) for name in ("conv", "linear")),
        *(but(projector=ProjectorSizes("mlp", 48, 3, 64, ve)) for ve in ("shared", "zero")),
    ],
)
@pytest.mark.parametrize("seconds", [8.0, 3.06])  # 153 frames: no multiple of the stack
def test_with_every_choice_of_the_recipe(recipe: Recipe, seconds: float) -> None:
    found = case(recipe, seconds=seconds)
    assert found.computed.kept == pytest.approx(kept_by_autograd(found), rel=0.02)


def test_rows_longer_than_a_window_keep_their_masks() -> None:
    long = case(CPU, config(window="SSSL"), seconds=32.0, era="E", batch=1)
    got = kept_by_autograd(long)
    assert long.computed.kept == pytest.approx(got, rel=0.01)
    masks = 3 * 4 * (400 + 14) ** 2
    assert masks > 0.05 * got  # they count


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(
    "weighs", [{"vocab": 2048}, {"vocab": 2048, "ctc": False, "text": 4}, {"layers": 8}]
)
def test_the_peak_is_that_of_the_allocator(weighs: dict[str, int], checkpointing: bool) -> None:
    """Whichever moment is the worst: CTC's backward pass, the logits', or a layer's."""
    recipe = but(ctc=weighs.get("ctc", True), checkpointing=checkpointing)
    sizes = config(layers=weighs.get("layers", 4), vocab=weighs.get("vocab", 0))
    found = case(recipe, sizes, text=" ".join([TEXT] * weighs.get("text", 1)), seconds=8.0)
    train_step(found.trainee, found.packed, 1e-4)  # makes the moments
    got = peak_on_a_cpu(lambda: train_step(found.trainee, found.packed, 1e-4))
    m = found.computed
    assert m.beside + m.kept + m.passing == pytest.approx(got, rel=0.03)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("dropout", [False, True])
@pytest.mark.parametrize("targets", [TARGETS, TARGETS[:4], TARGETS[4:], ("attn.c_v",)])
def test_adapters_keep_the_inputs_of_what_they_adapt(
    checkpointing: bool, dropout: bool, targets: tuple[str, ...]
) -> None:
    recipe = but(checkpointing=checkpointing, lora_rank=4, lora_targets=targets, lora_dropout=dropout)  # fmt: skip
    found = case(recipe, seconds=8.0)
    assert found.computed.kept == pytest.approx(kept_by_autograd(found), rel=0.01)
    lora = found.trainee.lm.lora
    assert lora is not None
    trained = sum(p.numel() for p in lora.parameters())
    assert adapter_parameters(found.trainee.lm.config, 4, targets) == trained
    more = found.computed.trained - case(but(checkpointing=checkpointing)).computed.trained
    assert more == 16 * trained  # weight, gradient, two moments


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("dropout", [False, True])
def test_the_peak_with_adapters(dropout: bool, checkpointing: bool) -> None:
    recipe = but(checkpointing=checkpointing, lora_rank=4, lora_dropout=dropout)
    found = case(recipe, config(layers=8), seconds=8.0)
    train_step(found.trainee, found.packed, 1e-4)
    got = peak_on_a_cpu(lambda: train_step(found.trainee, found.packed, 1e-4))
    m = found.computed
    assert m.beside + m.kept + m.passing == pytest.approx(got, rel=0.04)


@pytest.mark.parametrize(("depth", "millions"), [(12, 2.65), (20, 7.37), (26, 12.46)])
def test_adapters_of_rank_16_on_all_six_matrices(depth: int, millions: float) -> None:
    assert adapter_parameters(depth_config(depth), 16) / 1e6 == pytest.approx(millions, abs=0.005)


@pytest.mark.parametrize("name", ["mlp", "conv", "linear"])
@pytest.mark.parametrize("ctc", [False, True])
@pytest.mark.parametrize("rank", [0, 4])
def test_it_is_what_autograd_keeps_on_a_card(
    name: str, ctc: bool, rank: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """bf16 and autocast, on fake tensors of a card; kernels of a real one keep some seeds more."""
    sizes = config()
    recipe = Recipe(ProjectorSizes(name, 48, 4, 96), ctc, lora_rank=rank, lora_dropout=rank > 0)
    packed = Packed(torch.randn(3, 400, 48).half(), torch.full((3,), 400), [TEXT] * 3, ["k"] * 3, START, START, 3)  # fmt: skip
    template = choose_template({"kind": "sft"})
    n_text = len(TOK.encode(TEXT))
    turns = [template.repeat(TEXT)] * 3
    host = train.step._Host(packed.features, None, [400] * 3, packed.texts, packed.keys, [100] * 3, [TOK.encode(TEXT)] * 3,
                            turns, lay_out(turns, [100] * 3, template, TOK))  # fmt: skip
    monkeypatch.setattr(train.step, "_host", lambda *_: host)
    # CTC knows no fake tensors: its own table of states is left out on both sides.
    monkeypatch.setattr("train.ctc.F.ctc_loss", lambda log_p, *_, **__: log_p.exp().sum())
    # Fake tensors choose no kernel by what a card can do: this is the one it takes in bf16.
    flash = torch.ops.aten._scaled_dot_product_flash_attention
    monkeypatch.setattr(
        "omni.nanochat.layers.F.scaled_dot_product_attention",
        lambda q, k, v, attn_mask, is_causal: flash(q, k, v, 0.0, is_causal)[0],
    )
    with fake_cuda():
        with torch.device("cuda"):
            lm = NanoChat(sizes, ERAS["E"]).freeze()
            projector = build_projector(
                name, d_in=48, n_embd=128, n_ve=lm.n_ve, kv_dim=lm.kv_dim, hidden=96
            )
        for key, p in list(lm.named_parameters()):
            if p.ndim > 1:
                module, _, last = key.rpartition(".")
                half = nn.Parameter(p.detach().bfloat16(), requires_grad=False)
                setattr(lm.get_submodule(module), last, half)
        lm.cos, lm.sin = lm.cos.to("cuda"), lm.sin.to("cuda")
        if rank:
            with torch.device("cuda"):
                lm.wear(Lora(sizes, rank, 8.0, 0.05))
        optimizer = make_optimizer(projector, 1e-3, lm.lora, 1e-3)
        trainee = Trainee(lm, TOK, projector, template, optimizer, 8, ctc=float(ctc))
        rows = Rows(3, 100 + n_text + template.around(TOK), 100, n_text + 1)
        got = kept_by_autograd(Case(trainee, packed, training_memory(sizes, rows, recipe)))
    m = training_memory(sizes, rows, recipe)
    head = 128 + lm.n_ve * lm.kv_dim
    # The graph holds them; the model says "trained".
    copies = 2 * (recipe.projector.weights(head) + adapter_parameters(sizes, rank))
    if ctc:  # the stand-in keeps its own result, as large as the log-probabilities
        copies += 4 * 3 * 100 * (TOK.vocab_size + 1) - 3 * (100 * (2 * n_text + 2) * 4 + n_text * 8)
    assert m.kept + copies == pytest.approx(got, rel=0.03)


def test_a_projector_is_counted_without_being_built() -> None:
    for name in ("mlp", "conv", "linear"):
        for audio_ve in ("learned", "shared", "zero"):
            own = {"d_in": 24, "stack": 3, "hidden": 40, "audio_ve": audio_ve}
            built = build_projector(name, n_embd=32, n_ve=3, kv_dim=16, **own)
            sizes = ProjectorSizes(name, **own)
            want = sum(p.numel() for p in built.parameters() if p.requires_grad)
            assert sizes.parameters(32 + sizes.value_rows(3) * 16) == want


def test_parameters_are_nanochats_own_counts() -> None:
    for depth, total, ve in ((4, 36_700_242, 2), (12, 286_261_730, 6), (20, 896_533_746, 10)):
        groups = parameter_groups(depth_config(depth))
        assert sum(groups.values()) == total
        assert groups["value_embeds"] == 32768 * depth_config(depth).kv_dim * ve
    assert parameter_groups(CONFIG, "A")["value_embeds"] == 0


def test_more_rows_take_more_and_each_flag_less() -> None:
    d12, rows = depth_config(12), Rows.of(8, 512)
    totals = [training_memory(d12, Rows.of(b, 512)).total for b in (1, 8, 32)]
    assert totals == sorted(totals)
    plain = training_memory(d12, rows).total
    for less in (Recipe(checkpointing=True), Recipe(ctc=False)):
        assert training_memory(d12, rows, less).total < plain
    for more in (Recipe(lora_rank=8), Recipe(element=4)):
        assert training_memory(d12, rows, more).total > plain
    assert largest_batch(24, d12, rows, Recipe(checkpointing=True)) > largest_batch(24, d12, rows)
    assert largest_batch(24, d12, rows) > 8
    assert largest_batch(3, depth_config(26), rows) == 0
    fits = largest_batch(24, d12, rows)
    room = (24e9 - 0.9e9) / 1.05
    assert training_memory(d12, Rows.of(fits, 512)).total <= room
    assert training_memory(d12, Rows.of(fits + 1, 512)).total > room


def test_one_step_is_enough_to_see_a_gradient() -> None:
    """What `kept_by_autograd` runs is the trainer's own backward pass."""
    found = case(CPU, seconds=1.0)
    backward(found.trainee, found.packed)
    assert all(p.grad is not None for p in found.trainee.projector.parameters() if p.requires_grad)


def test_the_page_holds_what_the_bench_prints() -> None:
    page = (ROOT / "docs" / "memory.md").read_text()
    for table in (parts_table(), cards_table()):
        assert "\n".join(table) in page
