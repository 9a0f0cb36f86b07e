"""Where the repository and the shared data lie, for tests at any depth."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
