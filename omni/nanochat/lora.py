"""Low-rank adapters (LoRA) of a nanochat, for the rows that hold audio: y = Wx + (alpha/r) B A x.

The LM wears them (`NanoChat.wear`) and is none the wiser: they are in none of its hashes, and a row
of text alone gets the logits that it gets without them, to the bit. This file makes, saves, loads
and merges them; layers.py adds what they say. Must not know which rows hold audio, nor how
adapters are trained.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import safetensors
import safetensors.torch
import torch
from pydantic import Field
from torch import Tensor, nn
from typing_extensions import TypedDict

from omni.errors import OmniError, brief
from omni.formats.checked import parse_json
from omni.formats.files import write_whole
from omni.formats.tensors import check_finite, read_tensors
from omni.nanochat.config import NanoChatConfig
from omni.nanochat.layers import Worn

if TYPE_CHECKING:
    from omni.nanochat.model import NanoChat

TARGETS = ("attn.c_q", "attn.c_k", "attn.c_v", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
CHECKPOINTS = ("best", "last")  # of a run: `lora-<name>.safetensors`
LARGEST_RANK = 1 << 16
_HEADER = "lora"  # one key of the file's metadata: several have no fixed order in the bytes


class LoraFacts(TypedDict):
    """What an adapter file says of itself. base: fingerprint of the LM that it was trained on."""

    schema: Literal[1]
    rank: Annotated[int, Field(ge=1, le=LARGEST_RANK)]
    alpha: Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)]
    dropout: Annotated[float, Field(ge=0, lt=1)]
    targets: list[str]
    base: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Pair(nn.Module):
    """Adapter of one matrix: A (r, in) normal, B (out, r) zero, so that it says nothing at first."""

    def __init__(self, n_in: int, n_out: int, rank: int) -> None:
        super().__init__()
        self.A = nn.Parameter(torch.zeros(rank, n_in))
        self.B = nn.Parameter(torch.zeros(n_out, rank))


class Lora(nn.Module):
    """Adapters of one LM, fp32, named as their matrices are: `h.3.attn.c_q.A`, `h.3.attn.c_q.B`.

    Dropout acts in training mode alone, which is this module's own (the frozen LM is always in
    eval mode), and draws from torch's generator of the device.

    Attributes:
        rank, alpha, dropout, targets: as given; targets in the order of `TARGETS`.
        scale: multiplies alpha / rank; at 0 the LM is the base LM, to the bit.
    """

    def __init__(
        self,
        config: NanoChatConfig,
        rank: int,
        alpha: float,
        dropout: float = 0.0,
        targets: Sequence[str] = TARGETS,
        seed: int = 0,
    ) -> None:
        """A is normal with a standard deviation of 1/sqrt(in). Most inputs come from a norm, at an
        RMS of 1, so A x begins at an RMS of 1 too, whatever the width and the rank, and one
        learning rate for B serves all of them.

        Args:
            dropout: share of an input's channels that the adapters don't see, in training.
            targets: the matrices of a layer that are adapted, of `TARGETS`.
            seed: of A.

        Raises:
            OmniError: a rank, alpha or dropout out of bounds, or no such target.
        """
        super().__init__()
        _check_options(rank, alpha, dropout, targets)
        self.rank, self.alpha, self.dropout = rank, float(alpha), float(dropout)
        self.targets = tuple(name for name in TARGETS if name in targets)
        self.scale = 1.0
        sides = matrix_sides(config)
        layers = []
        for _ in range(config.n_layer):
            rooms = {name.partition(".")[0]: nn.ModuleDict() for name in self.targets}
            for name in self.targets:
                room, _, matrix = name.partition(".")
                rooms[room][matrix] = Pair(*sides[name], rank)
            layers.append(nn.ModuleDict(rooms))
        self.h = nn.ModuleList(layers)
        rng = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for key, p in self.named_parameters():
                if key.endswith(".A"):
                    p.copy_(
                        torch.randn(p.shape, generator=rng, device="cpu") / math.sqrt(p.shape[1])
                    )

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def factor(self) -> float:
        """What B A x is multiplied with."""
        return self.alpha / self.rank * self.scale

    def worn(self, heard: Tensor | bool) -> dict[int, Worn]:
        """What each layer wears in one forward pass; empty where no row hears anything.

        Args:
            heard: (B,) bool, or one answer for all rows.
        """
        if heard is False or self.scale == 0:
            return {}
        rows = heard if isinstance(heard, Tensor) else None
        dropout = self.dropout if self.training else 0.0
        return {i: Worn(self.pairs(i), self.factor, dropout, rows) for i in range(len(self.h))}

    def check_fit(self, config: NanoChatConfig) -> None:
        """Refuse an LM of other sizes.

        Raises:
            OmniError: names the first matrix that differs.
        """
        _check_shapes(self.state_dict(), config, self.rank, self.targets, "")

    def pairs(self, layer: int) -> dict[str, tuple[Tensor, Tensor]]:
        """A and B of a layer's matrices."""
        pairs = {name: self.get_submodule(f"h.{layer}.{name}") for name in self.targets}
        return {name: (pair.A, pair.B) for name, pair in cast(dict[str, Pair], pairs).items()}


def matrix_sides(config: NanoChatConfig) -> dict[str, tuple[int, int]]:
    """(in, out) of each matrix of a layer that can be adapted, in the order of `TARGETS`."""
    C, kv = config.n_embd, config.kv_dim
    sides = ((C, C), (C, kv), (C, kv), (C, C), (C, 4 * C), (4 * C, C))
    return dict(zip(TARGETS, sides, strict=True))


def save_lora(lora: Lora, path: Path, fingerprint_of_base: str) -> None:
    """Write the adapters to a safetensors file, whole; equal weights give equal bytes."""
    facts: LoraFacts = {
        "schema": 1,
        "rank": lora.rank,
        "alpha": lora.alpha,
        "dropout": lora.dropout,
        "targets": list(lora.targets),
        "base": fingerprint_of_base,
    }
    tensors = {k: v.detach().float().cpu().contiguous() for k, v in lora.state_dict().items()}
    header = {_HEADER: json.dumps(facts, sort_keys=True)}
    write_whole(path, safetensors.torch.save(tensors, header))


def load_lora(
    path: Path, lm: "NanoChat", fingerprint: str = "", dtype: torch.dtype = torch.float32
) -> Lora:
    """The adapters in a file, in eval mode, on the LM's device; it does not wear them yet.

    Args:
        fingerprint: the LM's, where the caller has it: computing it reads all weights.
        dtype: of the parameters. The LM's own spares a cast of each in every pass, and rounds them
            no otherwise; what is trained on should stay fp32.

    Raises:
        OmniError: no adapters there, a damaged file, another LM's, sizes that don't fit this LM, or
            weights that are not finite.
    """
    facts = read_facts(path)
    mine = fingerprint or lm.fingerprint()
    if facts["base"] != mine:
        raise OmniError(
            f"adapters of an LM with hash {facts['base'][:12]}, this one has {mine[:12]}",
            str(path),
            "give the LM that they were trained on",
        )
    tensors = read_tensors(path)
    # Before anything is made: sizes may be a stranger's, and the file's bytes bound its tensors.
    _check_shapes(tensors, lm.config, facts["rank"], facts["targets"], str(path))
    check_finite(tensors, str(path))
    lora = Lora(lm.config, facts["rank"], facts["alpha"], facts["dropout"], facts["targets"])
    lora.load_state_dict({key: tensor.float() for key, tensor in tensors.items()})
    return lora.eval().to(lm.device, dtype)


def find_adapters(run: Path, which: str | None = None) -> Path | None:
    """The adapter file of a run folder; None if it has none.

    Args:
        which: "best" or "last"; None takes the best that is there.
    """
    files = [run / f"lora-{name}.safetensors" for name in ([which] if which else CHECKPOINTS)]
    return next((file for file in files if file.is_file()), None)


def read_facts(path: Path) -> LoraFacts:
    """What an adapter file says of itself.

    Raises:
        OmniError: no such file, damaged, or a file of something else.
    """
    read_tensors(path, lambda key: False)  # is it there, and whole
    try:
        with safetensors.safe_open(str(path), framework="pt") as handle:
            header = handle.metadata() or {}
    except Exception as error:  # as `read_tensors` meets it
        raise OmniError(f"damaged safetensors ({brief(error)})", str(path)) from error
    mend = "use a lora-*.safetensors that omni-train-projector wrote"
    if _HEADER not in header:
        raise OmniError("the file holds no adapters", str(path), mend)
    facts = parse_json(header[_HEADER], LoraFacts, str(path), mend)
    _check_options(facts["rank"], facts["alpha"], facts["dropout"], facts["targets"], str(path))
    return facts


@torch.no_grad()
def merged_state(
    lm: "NanoChat", lora: Lora, state: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """The LM's weights with the adapters folded in: W + (alpha/r) scale B A.

    Such an LM hears everywhere: rows of text alone are changed too.

    Args:
        state: the weights to fold into, by the LM's own names, if not those it computes with.

    Returns:
        A new dict; the adapted matrices new and in fp32, the rest the very tensors of `state`.
    """
    out = dict(lm.state_dict() if state is None else state)
    for i in range(lm.config.n_layer):
        for name, (a, b) in lora.pairs(i).items():
            key = f"transformer.h.{i}.{name}.weight"
            change = (b.double() @ a.double() * lora.factor).to(out[key].device)
            out[key] = (out[key].double() + change).float()
    return out


@torch.no_grad()
def relative_change(lm: "NanoChat", lora: Lora) -> dict[str, float]:
    """By matrix, over all layers: the norm of (alpha/r) scale B A, by that of W (both Frobenius), or
    by 1 where W is zero."""
    added, there = dict.fromkeys(lora.targets, 0.0), dict.fromkeys(lora.targets, 0.0)
    for i in range(lm.config.n_layer):
        for name, (a, b) in lora.pairs(i).items():
            w = lm.get_submodule(f"transformer.h.{i}.{name}").weight
            a, b = a.double(), b.double()  # |B A|^2 = tr(B'B A A'), without the whole product
            added[name] += float((b.T @ b * (a @ a.T)).sum()) * lora.factor**2
            there[name] += float(torch.linalg.vector_norm(w.float())) ** 2
    return {name: math.sqrt(added[name] / (there[name] or 1.0)) for name in lora.targets}


def _check_options(
    rank: int, alpha: float, dropout: float, targets: Sequence[str], where: str = ""
) -> None:
    if not 1 <= rank <= LARGEST_RANK:
        raise OmniError(f"adapters of rank {rank}", where, f"from 1 to {LARGEST_RANK:,}")
    if not (math.isfinite(alpha) and alpha > 0):
        raise OmniError(f"adapters with alpha {alpha:g}", where, "give a number above 0")
    if not 0 <= dropout < 1:
        raise OmniError(f"adapters with dropout {dropout:g}", where, "from 0 to below 1")
    unknown = [name for name in targets if name not in TARGETS]
    if unknown or not targets or len(set(targets)) < len(targets):
        said = ", ".join(targets)[:200] or "nothing"
        raise OmniError(f"adapters on {said}", where, f"each of {', '.join(TARGETS)} at most once")


def _check_shapes(
    tensors: Mapping[str, Tensor],
    config: NanoChatConfig,
    rank: int,
    targets: Sequence[str],
    where: str,
) -> None:
    """Exactly the adapters of an LM of these sizes, in floating point."""
    sides = matrix_sides(config)
    want: dict[str, tuple[int, ...]] = {}
    for i in range(config.n_layer):
        for name in targets:
            n_in, n_out = sides[name]
            want |= {f"h.{i}.{name}.A": (rank, n_in), f"h.{i}.{name}.B": (n_out, rank)}
    for key in sorted(want.keys() | tensors.keys()):
        has = tensors.get(key)
        if has is None or tuple(has.shape) != want.get(key) or not has.is_floating_point():
            found = "missing" if has is None else f"{tuple(has.shape)} of {has.dtype}"
            expected = f"expected {want[key]}" if key in want else "which this LM has not"
            raise OmniError(
                f"the adapters don't fit this LM: {key} is {found}, {expected}",
                where,
                "give the LM that they were trained on, or copy the file again",
            )
