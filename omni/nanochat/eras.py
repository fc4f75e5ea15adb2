"""The eras of nanochat: which constants a checkpoint was trained with, told from its tensors.

nanochat's checkpoints carry no version, yet five changes of the forward pass lie between the
first and the newest. A wrong constant raises no error, it only makes a worse model, so an era is
detected from keys, shapes and meta, and never guessed.

Must not know how the forward pass is computed (model.py) or where files lie (checkpoint.py).
"""

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from omni.errors import OmniError

# Written by upstream's base training since 2026-03-04 19:47, first hours of softcap 20 with an
# unrounded RoPE table; no key or shape tells that from era C.
C20_EVAL_TOKENS = 41_943_040


@dataclass(frozen=True)
class Era:
    """The constants of one stretch of nanochat's history.

    Attributes:
        name: "A", "B", "C", "C20", "D" or "E".
        rope_base: base of the rotary frequencies.
        rope_bf16: the rotary table was rounded to bfloat16.
        qk_scale: factor on q and on k after their norm.
        has_lambdas: per-layer residual and x0 scales exist.
        ve_gate_width: channels that the value-embedding gate reads; 0 if there are no value
            embeddings.
        ve_gate_range: factor on the sigmoid of that gate.
        has_smear: smear and backout exist.
        windowed: an L layer sees `sequence_len` keys back rather than all.
        short_divisor: an S layer sees about sequence_len / short_divisor keys back.
        short_tile: that number is rounded up to a multiple of this.
        softcap: the logits are softcap * tanh(logits / softcap).
        how: what told this era from the others, in words.
    """

    name: str
    rope_base: float
    rope_bf16: bool
    qk_scale: float
    has_lambdas: bool
    ve_gate_width: int
    ve_gate_range: float
    has_smear: bool
    windowed: bool
    short_divisor: int
    short_tile: int
    softcap: float
    how: str = ""

    def short_window(self, sequence_len: int) -> int:
        """Keys before the current one that an S layer sees, for a model of `sequence_len`."""
        return -(-sequence_len // self.short_divisor // self.short_tile) * self.short_tile


ERAS: dict[str, Era] = {
    "A": Era("A", 1e4, True, 1.0, False, 0, 0.0, False, False, 1, 1, 15.0),
    "B": Era("B", 1e4, True, 1.0, True, 0, 0.0, False, True, 2, 1, 15.0),
    "C": Era("C", 1e4, True, 1.0, True, 32, 2.0, False, True, 2, 1, 15.0),
    "C20": Era("C20", 1e4, False, 1.0, True, 32, 2.0, False, True, 2, 1, 20.0),
    "D": Era("D", 1e5, False, 1.15, True, 12, 3.0, False, True, 3, 128, 15.0),
    "E": Era("E", 1e5, False, 1.2, True, 12, 3.0, True, True, 4, 128, 15.0),
}


def detect_era(
    state_dict: Mapping[str, torch.Tensor],
    user_config: Mapping[str, Any] | None = None,
    softcap: float | None = None,
    rope_bf16: bool | None = None,
) -> Era:
    """The era of a state dict (keys without `_orig_mod.`), with the overrides applied.

    Warns where C and C20 can't be told apart and no override is given.

    Raises:
        OmniError: the bigram variant, or a gate width no era has.
    """
    era = _from_keys(state_dict)
    if era.name == "C":
        era = _c_or_c20(era, user_config or {}, softcap is not None)
    if era.name == "C" and softcap == ERAS["C20"].softcap:
        # Its table was still rounded on the first two days, which `rope_bf16` has to tell.
        era = replace(ERAS["C20"], rope_bf16=True, how=era.how)
    if softcap is not None:
        era = replace(era, softcap=float(softcap), how=f"{era.how}; softcap {softcap} as told")
    if rope_bf16 is not None:
        era = replace(era, rope_bf16=rope_bf16, how=f"{era.how}; rope_bf16 {rope_bf16} as told")
    return era


def _from_keys(state_dict: Mapping[str, torch.Tensor]) -> Era:
    bigram = sorted(key for key in state_dict if key.startswith("bigram_"))
    if bigram:
        raise OmniError(
            "this is the bigram variant of era C (27 and 28 January 2026), which is not supported",
            where=f"key {bigram[0]}",
            mend="use a checkpoint trained before or after those two days",
        )
    if any(key.startswith(("smear_", "backout_")) for key in state_dict):
        return replace(ERAS["E"], how="it has smear and backout")
    gates = {key: t for key, t in state_dict.items() if re.search(r"attn\.ve_gate\.weight$", key)}
    if gates or any(key.startswith("value_embeds.") for key in state_dict):
        widths = {int(t.shape[-1]) for t in gates.values()}
        if widths == {32}:
            return replace(ERAS["C"], how="its value-embedding gates read 32 channels")
        if widths == {12}:
            return replace(ERAS["D"], how="its value-embedding gates read 12 channels, no smear")
        raise OmniError(
            f"value-embedding gates of width {sorted(widths) or 'none'}; eras C and C20 have 32, "
            "D and E have 12",
            where=next(iter(gates), "value_embeds.* without ve_gate"),
            mend="check that the file is a nanochat checkpoint of master",
        )
    if "resid_lambdas" in state_dict or "x0_lambdas" in state_dict:
        return replace(ERAS["B"], how="it has lambdas but no value embeddings")
    return replace(ERAS["A"], how="it has neither lambdas nor value embeddings")


def _c_or_c20(era: Era, user_config: Mapping[str, Any], softcap_given: bool) -> Era:
    if user_config.get("eval_tokens") == C20_EVAL_TOKENS:
        return replace(ERAS["C20"], how=f"{era.how}, and eval_tokens is {C20_EVAL_TOKENS}")
    if not softcap_given:
        warnings.warn(
            "eras C and C20 (2 to 9 March 2026) have the same tensors and this checkpoint's meta "
            "doesn't tell them apart: softcap 15 and a bfloat16 RoPE table are taken. For one of "
            "those days pass softcap=20 (and rope_bf16=False from the evening of 4 March on), or "
            'write "softcap": 20, "rope_bf16": false into its meta.',
            stacklevel=3,
        )
    return era
