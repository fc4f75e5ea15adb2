"""Where tests find things: the checkout, and reference data that may lie beside it."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
KITS = ROOT / "tests" / "kits"
SHARED = ROOT.parent / "shared"  # reference data beside the checkout; tests skip without it
