"""nanochat's forward pass for every era, fed by embeddings instead of ids.

One parametrised GPT: what differs between the eras stands in eras.py, what a forward pass does
stands here. `model(ids)` is `model.forward_embeds(*model.embed(ids))`, so a row of soft tokens
takes exactly the way a row of text takes. Adapters (lora.py) are worn, not owned: no parameter,
hash or saved state of the model sees them.

Must not know about files, tokens' meaning, prompts or audio. Formulas: karpathy/nanochat,
`nanochat/gpt.py`, at the commits of each era.
"""

import hashlib
from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from omni.errors import OmniError
from omni.nanochat.cache import KVCache
from omni.nanochat.config import NanoChatConfig
from omni.nanochat.eras import Era
from omni.nanochat.layers import Block, Matrix, Table, norm
from omni.nanochat.lora import Lora
from omni.nanochat.positions import rope_table, window_sizes

SMEAR_WIDTH = 24  # channels the smear gate reads
# Kinds of layer that torch.compile meets, beyond which it gives up: with value rows or without, with
# a mask or without, and with adapters in no row, in all, or in some; and room for twice as many.
LAYER_GRAPHS = 24


class NanoChat(nn.Module):
    """A nanochat GPT of one era. Parameter names and shapes are upstream's.

    Attributes:
        config: its sizes.
        era: its constants.
        n_ve: number of layers with value embeddings (0 before era C).
        kv_dim: width of one layer's value row.
        activation_checkpointing: recompute each layer in the backward pass instead of keeping
            its activations; costs a second forward pass.
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, config: NanoChatConfig, era: Era, vocab_rows: int | None = None) -> None:
        super().__init__()
        self.config, self.era = config, era
        self.activation_checkpointing = False
        self.loaded_fingerprint: str | None = None  # of weights that a cast has rounded since
        self._compiled: list[Callable[..., Tensor]] = []
        self._worn: list[Lora] = []  # in a list, lest torch takes it for a part of the model
        V = vocab_rows or -(-config.vocab_size // 64) * 64
        ve_layers = config.ve_layers if era.ve_gate_width else []
        self.n_ve, self.kv_dim = len(ve_layers), config.kv_dim
        blocks = [Block(config, era, i in ve_layers) for i in range(config.n_layer)]
        self.transformer = nn.ModuleDict(
            {"wte": Table(V, config.n_embd), "h": nn.ModuleList(blocks)}
        )
        self.lm_head = Matrix(config.n_embd, V)
        if era.has_lambdas:
            self.resid_lambdas = nn.Parameter(torch.ones(config.n_layer))
            self.x0_lambdas = nn.Parameter(torch.zeros(config.n_layer))
        if ve_layers:
            self.value_embeds = nn.ModuleDict({str(i): Table(V, config.kv_dim) for i in ve_layers})
        if era.has_smear:
            self.smear_gate = Matrix(SMEAR_WIDTH, 1)
            self.smear_lambda = nn.Parameter(torch.zeros(1))
            self.backout_lambda = nn.Parameter(torch.full((1,), 0.2))
        self.windows = window_sizes(config, era)
        cos, sin = rope_table(config, era)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    # -- the public forward pass ---------------------------------------------------------------

    def forward(self, ids: Tensor) -> Tensor:
        """Logits of a batch of token ids. ids: (B, T) long. Returns (B, T, vocab_size) fp32."""
        return self.forward_embeds(*self.embed(ids))

    def embed(self, ids: Tensor) -> tuple[Tensor, Tensor | None]:
        """What the model looks up for a token: its rows, before any norm.

        Args:
            ids: (B, T) long.

        Returns:
            rows (B, T, C), and value rows (B, T, n_ve, kv_dim), or None before era C.
        """
        rows = self.transformer["wte"](ids)
        if not self.n_ve:
            return rows, None
        return rows, torch.stack([table(ids) for table in self.value_embeds.values()], dim=2)

    def forward_embeds(
        self,
        rows: Tensor,
        ve_rows: Tensor | None = None,
        positions: Tensor | None = None,
        cache: KVCache | None = None,
        lengths: Tensor | None = None,
        heard: Tensor | bool = False,
    ) -> Tensor:
        """Logits of a batch of rows, text or audio.

        There is no attention mask against padding: pad on the right only.

        Args:
            rows: (B, T, C) embedding rows before the norm, any float dtype.
            ve_rows: (B, T, n_ve, kv_dim) value rows; None means zeros.
            positions: apply lm_head only there; (B, T) bool, or (N,) long of b * T + t, which
                nobody has to count on the device.
            cache: keys and values of what came before; advanced by this call.
            lengths: (B,) long, with a cache: how many of the T positions are real, per row.
            heard: which rows hold audio: adapters that are worn act there and in no others. (B,)
                bool on the model's device, or True for all and False for none, which cost less.

        Returns:
            fp32 logits, (B, T, vocab_size), or (N, vocab_size) of the N positions in row order.

        Raises:
            OmniError: the row is longer than the rotary table.
        """
        x = self.hidden_states(rows, ve_rows, cache, lengths, heard, final_only=True)[-1]
        if positions is None:
            return self.read_out(x)
        return self.read_out(x[positions] if positions.dim() > 1 else x.flatten(0, 1)[positions])

    def hidden_states(
        self,
        rows: Tensor,
        ve_rows: Tensor | None = None,
        cache: KVCache | None = None,
        lengths: Tensor | None = None,
        heard: Tensor | bool = False,
        final_only: bool = False,
    ) -> list[Tensor]:
        """The residual stream. Arguments as in `forward_embeds`.

        Returns:
            n_layer + 2 tensors (B, T, C): the input after norm and smear, the stream after each
            layer, and last the stream that the read-out sees (after backout). With `final_only`,
            that last one alone.
        """
        x = norm(rows.to(self.dtype))
        if ve_rows is not None:
            ve_rows = ve_rows.to(self.dtype)
        if self.era.has_smear:
            x = self._smear(x, cache, lengths)
        values = self._values(ve_rows)
        rope, masks = self._geometry(x, cache)
        worn = self.lora.worn(heard) if self.lora is not None else {}
        x0, backout, states = x, x, [x]
        for i, block in enumerate(cast(nn.ModuleList, self.transformer["h"])):
            if self.era.has_lambdas:
                x = self.resid_lambdas[i] * x + self.x0_lambdas[i] * x0
            args = (x, values.get(i), rope, masks[self.windows[i]], cache, i, worn.get(i))
            training = torch.is_grad_enabled() and cache is None
            layer = self._compiled[i] if self._compiled and training else block
            if self.activation_checkpointing and training:
                x = checkpoint(layer, *args, use_reentrant=False)
            else:
                x = layer(*args)
            if i == self.config.n_layer // 2:
                backout = x
            if not final_only:
                states.append(x)
        if self.era.has_smear:
            x = x - self.backout_lambda.to(x.dtype) * backout
        if cache is not None:
            cache.advance(lengths, rows.size(1))
        return [x] if final_only else [*states, x]

    def read_out(self, x: Tensor) -> Tensor:
        """Final norm, lm_head, crop of the padded vocabulary, softcap. (..., C) -> fp32 logits."""
        cap = self.era.softcap
        logits = self.lm_head(norm(x))[..., : self.config.vocab_size].float()
        if logits.requires_grad:
            return cap * torch.tanh(logits / cap)
        return logits.div_(cap).tanh_().mul_(cap)  # the same, without three more such tables

    # -- what surrounds it ---------------------------------------------------------------------

    @property
    def dtype(self) -> torch.dtype:
        """The compute dtype: that of the matrices."""
        return self.lm_head.weight.dtype

    @property
    def device(self) -> torch.device:
        return self.lm_head.weight.device

    def new_cache(self, batch: int, max_len: int) -> KVCache:
        """An empty cache for `batch` rows of at most `max_len` positions."""
        c = self.config
        shape = (c.n_layer, batch, c.n_kv_head, max_len, c.head_dim)
        return KVCache(shape, c.n_embd, self.dtype, self.device)

    @property
    def lora(self) -> Lora | None:
        """The adapters it wears."""
        return self._worn[0] if self._worn else None

    def wear(self, lora: Lora | None) -> "NanoChat":
        """Adapters for the rows that are heard, moved to this model's device; None takes them off.

        Raises:
            OmniError: they were made for other sizes.
        """
        if lora is not None:
            lora.check_fit(self.config)
            if lora.device != self.device:
                lora.to(self.device)
        self._worn = [] if lora is None else [lora]
        return self

    def compile_layers(self) -> "NanoChat":
        """Training passes, of any shape, compile each layer; sums round differently. Returns self."""
        limits = cast(Any, torch._dynamo.config)
        limits.recompile_limit = max(limits.recompile_limit, LAYER_GRAPHS)
        layers = cast(nn.ModuleList, self.transformer["h"])
        self._compiled = [torch.compile(layer, dynamic=True) for layer in layers]
        return self

    def freeze(self) -> "NanoChat":
        """No parameter asks for a gradient any more; eval mode. Returns self."""
        return self.requires_grad_(False).eval()

    def fingerprint(self) -> str:
        """sha256 over all parameters: name, shape, and bytes, matrices as bfloat16, the rest fp32.

        A checkpoint has one fingerprint, be it computed in fp32 on a CPU or in bf16 on a GPU, so
        that a run made on the one is recognised on the other. It does not see a change of fp32
        weights that bf16 would round away: `exact_hash` does. fp16 has fewer exponents than bf16:
        there it is that of the weights as they were loaded.
        """
        if self.dtype == torch.float16 and self.loaded_fingerprint is not None:
            return self.loaded_fingerprint
        return _hash(
            (key, t.to(torch.bfloat16 if t.ndim > 1 else torch.float32))
            for key, t in sorted(self.state_dict().items())
        )

    def exact_hash(self) -> str:
        """sha256 over all parameters as they are: told apart from one whose last bit has moved."""
        return _hash(sorted(self.state_dict().items()))

    def _values(self, ve_rows: Tensor | None) -> dict[int, Tensor]:
        """Value rows (B, T, kv_dim) by layer. Cut in one operation: its gradient is put together
        once, where a cut for each layer would fill and add up a whole (B, T, n_ve, kv_dim) each."""
        if ve_rows is None or not self.n_ve:
            return {}
        return dict(zip(self.config.ve_layers, ve_rows.unbind(2), strict=True))

    def _smear(self, x: Tensor, cache: KVCache | None, lengths: Tensor | None) -> Tensor:
        """Add a gated share of the previous position's normed row, across calls as within one."""
        first = x.new_zeros(x.size(0), 1, x.size(2))
        if cache is not None:
            # A fresh cache holds zeros, which is what "no previous row" adds.
            first = cache.swap_last_row(x, lengths).unsqueeze(1)
        previous = torch.cat([first, x[:, :-1]], dim=1)
        gate = self.smear_lambda.to(x.dtype) * torch.sigmoid(self.smear_gate(x[..., :SMEAR_WIDTH]))
        return x + gate * previous

    def _geometry(
        self, x: Tensor, cache: KVCache | None
    ) -> tuple[tuple[Tensor, Tensor], dict[int | None, Tensor | None]]:
        """Rotary factors of this call's positions, and one attention mask per window size."""
        T = x.size(1)
        start = torch.zeros(1, dtype=torch.long, device=x.device)
        if cache is not None:
            start = cache.lengths
        end = T if cache is None else cache.reach(T)
        if end > self.cos.size(0):
            raise OmniError(
                f"a row of {end} positions; the rotary table ends at {self.cos.size(0)}",
                where=f"sequence_len {self.config.sequence_len}",
                mend="use shorter audio or a model with a longer sequence_len",
            )
        at = start[:, None] + torch.arange(T, device=x.device)  # (B or 1, T)
        # Beyond a row's real length positions may leave the table; nothing reads them.
        index = at.clamp(max=self.cos.size(0) - 1)
        rope = (
            self.cos[index][:, None].to(x.dtype),
            self.sin[index][:, None].to(x.dtype),
        )  # (B or 1, 1, T, D/2)
        keys = torch.arange(end, device=x.device)
        distance = at[:, None, :, None] - keys  # (B or 1, 1, T, S)
        masks: dict[int | None, Tensor | None] = {}
        for window in set(self.windows):
            if end == T and (window is None or window >= T):
                masks[window] = None  # nothing before this call: plain causal, SDPA's fast path
            else:
                masks[window] = distance >= 0
                if window is not None:
                    masks[window] = (distance >= 0) & (distance <= window)
        return rope, masks


def _hash(named: Iterable[tuple[str, Tensor]]) -> str:
    """sha256 over name, shape and bytes of each tensor, one on the host at a time."""
    digest = hashlib.sha256()
    for key, tensor in named:
        digest.update(f"{key} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()
