"""Loss scaling: gradients of an LM in fp16 are too small for it, so the loss is made larger first.

The scale is a power of two, so that dividing by it again loses nothing. A step whose gradients
overflow is computed again with half of it: no batch is left out. Must not know how.
"""

from dataclasses import dataclass

import torch

LARGEST, PATIENCE = 2.0**16, 1000


@dataclass
class LossScale:
    """value: what the loss is multiplied with; good: steps since it has last changed."""

    value: float = 1.0
    good: int = 0

    @classmethod
    def of(cls, dtype: torch.dtype) -> "LossScale":
        """Of an LM that computes in `dtype`: 1 unless it is fp16."""
        return cls(LARGEST if dtype == torch.float16 else 1.0)

    def lower(self) -> bool:
        """Half of it; False where there is nothing to halve: the gradients are at fault."""
        if self.value <= 1:
            return False
        self.value, self.good = self.value / 2, 0
        return True

    def passed(self, dtype: torch.dtype) -> None:
        """A step was finite: after `PATIENCE` of them in fp16 the scale is tried twice as large."""
        if dtype == torch.float16 and self.value < LARGEST:
            self.good += 1
            if self.good == PATIENCE:
                self.value, self.good = self.value * 2, 0
