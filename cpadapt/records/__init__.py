"""Configs and identity of runs, their records, and the files that keep them."""
