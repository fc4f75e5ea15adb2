"""Frames of several utterances as one tensor, and whose audio stands in for whose in a control.

Must not know projectors, prompts or the LM.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def pad_features(features: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
    """(B, T, d) or (B, L, T, d) in the dtype given, padded with zeros; lengths (B,) int64."""
    longest = max(x.shape[-2] for x in features)
    shape = (len(features), *features[0].shape[:-2], longest, features[0].shape[-1])
    padded = np.zeros(shape, features[0].dtype)
    for i, x in enumerate(features):
        padded[i, ..., : x.shape[-2], :] = x
    return torch.from_numpy(padded), torch.tensor([x.shape[-2] for x in features])


def derangement(keys: Sequence[str]) -> list[int]:
    """For each place another place, near by, whose key differs; a permutation.

    Given texts in order of audio length, each transcript gets the audio of a neighbour in length
    that says something else, so that duration gives nothing away. Where a text makes up more
    than half of all, some places must keep their own.
    """
    n = len(keys)
    to = [i ^ 1 if i ^ 1 < n else i for i in range(n)]  # 0 with 1, 2 with 3, ...
    for i in range(n):
        if keys[to[i]] != keys[i]:
            continue
        # Swap with the nearest place for which the swap is wrong for neither.
        for j in sorted(range(n), key=lambda j: (abs(j - i), j)):
            if keys[to[j]] != keys[i] and keys[to[i]] != keys[j]:
                to[i], to[j] = to[j], to[i]
                break
    return to
