"""Options out of range never reach a run."""

from math import inf, nan

import pytest

from omni.errors import OmniError
from train.options import BOUNDS, TrainOptions


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lr", 0.0), ("lr", -1.0), ("lr", nan), ("lr", inf), ("clip", -1.0), ("clip", 0.0),
        ("steps", -1), ("warmup", -1), ("seed", -1), ("seed", 2**32), ("steps", 1.5), ("weights", (1.0, nan)),
        ("weights", (0.0,)), ("weights", (-2.0,)), ("weights", (inf,)), ("stack", 0),
        ("hidden", 0), ("batch_size", 0), ("batch_frames", -1), ("micro_batch_size", -1),
        ("buffer", 0), ("ctc_weight", -0.1), ("ctc_weight", nan), ("noise", -0.1), ("mask", 1.0),
        ("stretch", 1.0), ("stretch", nan), ("eval_every", -1), ("save_every", -5),
        ("eval_limit", -1), ("decode_limit", -1), ("workers", -1), ("workers", 1025),
        ("stack", 1501), ("hidden", 1 << 20), ("weights", (1001.0,)),
    ],
)  # fmt: skip
def test_out_of_range_is_refused_with_the_option(name: str, value: object) -> None:
    option = f"--{name.replace('_', '-')}"
    with pytest.raises(OmniError, match=rf"is not a (whole|finite) number .* \({option}\)"):
        TrainOptions(**{name: value})  # type: ignore[arg-type]


def test_every_number_has_bounds_and_every_default_keeps_them() -> None:
    numbers = {
        name
        for name, value in TrainOptions().to_json().items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
    assert set(BOUNDS) == numbers | {"weights", "workers"}  # by default several, and auto
    assert TrainOptions(workers=3).workers == 3
    assert TrainOptions(weights=(2.0, 0.5), steps=0, mask=0.99).weights == (2.0, 0.5)
