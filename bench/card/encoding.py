"""How fast a card encodes: whisper-base by batch size, eager, compiled and graphed; fp16's error.

Weights are random: sizes are all that counts. Must not know corpora or shards.
"""

import time
from collections.abc import Callable, Iterator

import torch
from transformers import WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder as Layers

from bench.card.rows import Budget, Row, seconds
from omni.errors import brief
from omni.whisper.encoder import WhisperEncoder

PART = "Encoding, whisper-base's sizes"
FLOP_A_WINDOW = 87.4e9  # two for a multiplication and an addition, 30 s
WINDOWS_OF_100_HOURS = 28_539  # train-clean-100: one an utterance
BATCHES = (8, 32, 64, 128, 256)


def random_encoder(device: torch.device, dtype: torch.dtype, layers: int = 6) -> WhisperEncoder:
    """whisper-base with random weights."""
    torch.manual_seed(0)
    config = WhisperConfig(
        d_model=512, encoder_layers=layers, encoder_attention_heads=8, encoder_ffn_dim=2048
    )
    tensors = {f"encoder.{k}": v for k, v in Layers(config).state_dict().items()}
    return WhisperEncoder(config.to_dict(), tensors, "random", "seed 0", str(device), dtype)


def measure(
    device: torch.device, budget: Budget, batches: tuple[int, ...] = BATCHES, layers: int = 6
) -> Iterator[Row]:
    """Rows, the best batch's projection to 100 hours last."""
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    peak = matmul_flops(device, dtype, budget)
    yield Row(PART, f"a large matrix product in {dtype}", peak / 1e12, "TFLOP/s", "the peak below")
    encoder = random_encoder(device, dtype, layers)
    best, cost = 0.0, dict[str, float]()  # of a way: compiling may take a minute
    for batch in batches:
        if budget.left < 0:
            yield Row(PART, f"batch {batch}", None, "windows/s", "out of time")
            continue
        mel = torch.randn(batch, encoder.n_mels, 3000, device=device, dtype=dtype)
        counts = [635] * batch  # 12.7 s, LibriSpeech's mean
        for name, run in _ways(encoder, mel, counts).items():
            if budget.left < cost.get(name, 0.0):
                yield Row(PART, f"batch {batch}, {name}", None, "windows/s", "out of time")
                continue
            began = time.monotonic()
            try:
                rate = batch / seconds(run, device, budget)
            except Exception as error:  # a way that fails here is a row that says why
                yield Row(PART, f"batch {batch}, {name}", None, "windows/s", brief(error))
                continue
            finally:
                cost[name] = time.monotonic() - began
            best = max(best, rate)
            share = rate * FLOP_A_WINDOW * layers / 6 / peak
            yield Row(PART, f"batch {batch}, {name}", rate, "windows/s", f"{share:.0%} of the peak")
    if device.type == "cuda":
        yield from _precision(device, layers)
    if best:
        yield Row(
            PART, "100 hours, the encoder alone", WINDOWS_OF_100_HOURS / best, "s", "computed"
        )


def matmul_flops(device: torch.device, dtype: torch.dtype, budget: Budget) -> float:
    """Operations a second of a square matrix product that fills the device."""
    n = 8192 if device.type == "cuda" else 1024
    a = torch.randn(n, n, device=device, dtype=dtype)
    return 2 * n**3 / seconds(lambda: a @ a, device, budget)


def _ways(
    encoder: WhisperEncoder, mel: torch.Tensor, counts: list[int]
) -> dict[str, Callable[[], object]]:
    """The same batch eager, and on a card compiled and as a graph."""

    def eager() -> object:
        return encoder.encode_mel(mel, counts)

    ways: dict[str, Callable[[], object]] = {"eager": eager}
    if mel.is_cuda:
        ways["compiled"] = _lazily(lambda: torch.compile(eager))
        ways["graphed"] = _lazily(lambda: _graphed(eager))
    return ways


def _lazily(make: Callable[[], Callable[[], object]]) -> Callable[[], object]:
    """Made at the first call, so that what fails in making fails where it is measured."""
    made: list[Callable[[], object]] = []

    def run() -> object:
        if not made:
            made.append(make())
        return made[0]()

    return run


def _graphed(job: Callable[[], object]) -> Callable[[], object]:
    """One replay of all its launches."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            job()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        job()
    return graph.replay


def _precision(device: torch.device, layers: int) -> Iterator[Row]:
    """fp16 beside fp32 on the same log-mel; TF32 is off."""
    mel = torch.randn(2, 80, 3000, device=device)
    exact = random_encoder(device, torch.float32, layers).encode_mel(mel, [1500, 1500])
    half = random_encoder(device, torch.float16, layers).encode_mel(mel.half(), [1500, 1500])
    half = half.float()
    error = (half - exact).norm() / exact.norm()
    cosine = torch.nn.functional.cosine_similarity(half, exact, dim=-1).min()
    yield Row(PART, "fp16 against fp32, relative error", 100 * error.item(), "%", "random weights")
    yield Row(PART, "fp16 against fp32, least cosine of a frame", cosine.item(), "", "")
