"""What this book needs above the library."""

from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
"""The checkout that holds the studies, the records and the pages."""
