"""The analysis behind this book. It builds on the library and is not installed with it."""

from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
"""The checkout that holds the studies, the records and the pages."""
