"""`omni-smoke`: do the pieces fit? Sine clips through the real encoder into a random nanochat.

Wires the smoke corpus to the training step; must not know how either works.
"""

import argparse
import sys
import time
from collections.abc import Sequence

from cli import _types
from cli._common import make_parser, run
from omni.encoder import DEFAULT_ENCODER

PLUMBING = (
    "This is plumbing: it shows that audio, encoder, projector and LM fit together, and nothing\n"
    "about hearing. The LM trains along, here alone: nanochat starts with output projections of\n"
    "zero, so a frozen random one would pass no gradient to the projector."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 if the loss fell far enough."""
    return run(build_parser, command, argv)


def build_parser() -> argparse.ArgumentParser:
    """All options, in groups."""
    parser = make_parser(
        "omni-smoke",
        "Push five sine clips through Whisper, a projector and a random nanochat of 6 layers, and\n"
        f"check that the loss falls.\n\n{PLUMBING}",
    )
    model = parser.add_argument_group("model")
    model.add_argument(
        "--encoder", type=_types.some, default=DEFAULT_ENCODER, help="folder or hub id"
    )
    model.add_argument("--seed", type=_types.seed, default=0, help="of the random weights")
    speed = parser.add_argument_group("speed")
    speed.add_argument(
        "--device", type=_types.device, default="auto", help="auto, cpu, cuda, cuda:1, …"
    )
    speed.add_argument("--steps", type=_types.whole(1), default=50, help="training steps")
    return parser


def command(args: argparse.Namespace) -> int:
    """Extract, train and say whether it passed."""
    # Imported late: --help must not wait for torch.
    from extract.corpora.smoke import smoke_manifest
    from omni.audio import load_audio
    from omni.device import pick_device
    from omni.errors import enough_memory
    from omni.whisper.encoder import load_encoder
    from train.smoke import FALL, smoke

    device = pick_device(args.device)
    print(PLUMBING)
    began = time.monotonic()
    manifest = smoke_manifest()
    with enough_memory("the encoder", "give a smaller --encoder, or --device cpu"):
        encoder = load_encoder(args.encoder, device)
    waves = [load_audio(manifest.audio_path(u)) for u in manifest.utterances]
    features = encoder.encode(waves)
    frames = ", ".join("x".join(map(str, f.shape)) for f in features)
    print(f"{len(features)} clips, frames x width: {frames}")

    result = smoke(
        features,
        [u.text_norm for u in manifest.utterances],
        steps=args.steps,
        seed=args.seed,
        device=device,
        on_step=_print_step,
    )
    first, last = result.losses[0], result.losses[-1]
    print(f"first loss {first:.3f}, last loss {last:.3f} nats a token (must fall by {FALL})")
    print(f"gradient at the projector: {result.projector_grad:.2e} (must not be 0)")
    print(f"{'passed' if result.passed else 'FAILED'} in {time.monotonic() - began:.0f} s")
    return 0 if result.passed else 1


def _print_step(step: int, loss: float) -> None:
    """A line for the first step and every tenth."""
    if step == 1 or step % 10 == 0:
        print(f"step {step:3d}  loss {loss:.3f}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
