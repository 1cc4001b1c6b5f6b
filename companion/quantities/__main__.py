"""Compute the book's numbers, once a build; with --renew also what is committed of them."""

import argparse
import sys

from companion import PROJECT, evidence, snapshot, statements
from companion.forks import in_forks
from companion.quantities import CHAPTERS, everything, of_chapter, to_compute
from cpadapt.records.store import write_atomically


def main() -> None:
    """`python -m companion.quantities`."""
    parser = argparse.ArgumentParser(prog="python -m companion.quantities", description=__doc__)
    parser.add_argument("--only", metavar="CHAPTER", choices=CHAPTERS, help="this chapter's numbers")
    parser.add_argument("--renew", action="store_true", help="write what is committed of them")
    asked = parser.parse_args()
    # A process for each chapter, so that what it reads is all that it reads (`companion.quantities.compute`).
    if failed := in_forks(to_compute([asked.only] if asked.only else CHAPTERS)):
        sys.exit(f"failed: {', '.join(failed)}")
    if asked.only:
        for name, quantity in of_chapter(asked.only).items():
            style = "value" if isinstance(quantity.value, str) else "unit" if quantity.low is None else "full"
            print(f"{name}: {quantity.text(style)}")
        return
    if asked.renew:
        values, readme = everything(), PROJECT / "README.md"
        kept = snapshot.text(values)
        write_atomically(snapshot.FILE, kept.encode())
        write_atomically(evidence.FILE, evidence.text(snapshot.read(kept)).encode())
        write_atomically(readme, statements.renewed(readme.read_text(encoding="utf-8"), values).encode())


if __name__ == "__main__":
    main()
