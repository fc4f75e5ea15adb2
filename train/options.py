"""What a training run can be told, with the defaults of the recipe.

Must not know how any of it is used.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, cast

from omni.errors import OmniError
from train.bounds import SEED, Bounds, whole

if TYPE_CHECKING:  # brings pydantic, which --help needs not
    from omni.formats.run_files import TrainConfig

# A resumed run may differ from its first start in these: none of them changes the recipe.
FREE = frozenset(
    {
        "workers", "wandb", "device", "shards", "eval_shards", "eval_limit", "decode_limit",
        "micro_batch_size", "checkpoint_activations", "lm_dtype", "allow_mixed", "eval_tasks",
    }
)  # fmt: skip


_COUNT, _ONE_UP, _POSITIVE = whole(), whole(1), Bounds(above=0)
_SIZE, _SHARE = Bounds(), Bounds(below=1)
# Of every number here; the command line takes its own from this table.
BOUNDS: dict[str, Bounds] = {
    "weights": Bounds(above=0, most=1000), "stack": whole(1, 1500), "hidden": whole(1, 65_536),
    "steps": _COUNT, "batch_size": _ONE_UP, "batch_frames": _COUNT, "micro_batch_size": _COUNT,
    "bucket": whole(1, 3000),
    "buffer": _ONE_UP, "lr": Bounds(above=0, most=1000), "warmup": _COUNT, "clip": _POSITIVE,
    "ctc_weight": _SIZE, "noise": _SIZE, "gain": _SIZE, "mask": _SHARE, "stretch": _SHARE,
    "seed": SEED, "eval_every": _COUNT, "save_every": _COUNT, "eval_limit": _COUNT,
    "decode_limit": _COUNT, "workers": whole(0, 1024), "turns": whole(1, 64),
    "lora": whole(0, 65_536), "lora_alpha": _SIZE, "lora_dropout": _SHARE,
    "lora_lr": Bounds(above=0, most=1000),
}  # fmt: skip


@dataclass(frozen=True)
class TrainOptions:
    """See `omni-train-projector --help` for the words; the names are the same.

    `steps` of 0 means ten passes over the training data, at least 100 and at most 8,000;
    `eval_every` and `save_every` of 0 mean a fifth of the steps; `workers` of None means as many as
    `train.ahead.choose_workers` says; `lora` of 0 means no adapters, `lora_alpha` of 0 twice the rank.
    `parent` is `--from`.

    Raises:
        OmniError: a number out of `BOUNDS`, or options that contradict each other; none of them would
            end in a run worth having.
    """

    shards: tuple[str, ...] = ("shards",)
    weights: tuple[float, ...] = ()
    eval_shards: tuple[str, ...] = ()
    lm: str = "auto"
    lm_dtype: str = "auto"
    allow_mixed: bool = False
    prompt: str | None = None
    audio_first: bool = False
    projector: str = "mlp"
    stack: int = 4
    hidden: int = 1024
    audio_ve: str = "learned"
    steps: int = 0
    batch_size: int = 32
    batch_frames: int = 0
    micro_batch_size: int = 0
    checkpoint_activations: bool = False
    compile: bool = False
    bucket: int = 1
    buffer: int = 2048
    lr: float = 2e-3
    warmup: int = 50
    clip: float = 1.0
    ctc_weight: float = 1.0
    noise: float = 0.3
    gain: float = 0.2
    mask: float = 0.0
    stretch: float = 0.15
    shuffle_pairs: bool = False
    tasks: str | None = None
    turns: int = 4
    self_loss: str = "ce"
    parent: str | None = None
    lora: int = 0
    lora_alpha: float = 0.0
    lora_dropout: float = 0.05
    lora_lr: float = 1e-4
    lora_targets: str = "all"
    lora_everywhere: bool = False
    freeze_projector: bool = False
    seed: int = 0
    language: str = "en"
    eval_every: int = 0
    save_every: int = 0
    eval_limit: int = 256
    decode_limit: int = 128
    eval_tasks: str | None = None
    workers: int | None = None
    device: str = "auto"
    wandb: str = "auto"

    def __post_init__(self) -> None:
        for name, bounds in BOUNDS.items():
            value = getattr(self, name)
            for number in value if isinstance(value, tuple) else (value,):
                if number is None and getattr(TrainOptions, name) is None:
                    continue  # not told: chosen later
                if not bounds.hold(number):
                    option = f"--{name.replace('_', '-')}"
                    raise OmniError(f"{number!r} is not {bounds}", option)
        self._check_together()

    def _check_together(self) -> None:
        """Options that make no sense beside each other."""
        if self.tasks and self.shuffle_pairs:
            raise OmniError(
                "wrong pairs of a table of tasks are the table's own", "--shuffle-pairs",
                "make the table with omni-mix --shuffle-pairs",
            )  # fmt: skip
        if self.freeze_projector and not self.lora:
            raise OmniError("nothing to train", "--freeze-projector", "give --lora a rank")
        if self.freeze_projector and not self.parent:
            raise OmniError(
                "a projector that was never trained would be frozen", "--freeze-projector",
                "give --from the run of a trained one",
            )  # fmt: skip

    @property
    def alpha(self) -> float:
        """Of the adapters."""
        return self.lora_alpha or 2.0 * self.lora

    def to_json(self) -> "TrainConfig":
        """All of them, as JSON holds them (tuples as lists)."""
        values = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        return cast("TrainConfig", values)  # which names those that others read

    def differences(self, other: Mapping[str, Any]) -> list[str]:
        """`name: theirs, now mine` for each option that a resumed run may not change. What a run
        of before an option knows nothing of, it was made with the default of."""
        mine: Mapping[str, object] = self.to_json()
        return [
            f"{f.name}: {other.get(f.name, f.default)!r}, now {mine[f.name]!r}"
            for f in fields(self)
            if f.name not in FREE and other.get(f.name, f.default) != mine[f.name]
        ]
