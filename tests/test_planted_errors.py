"""The errors of tests/planted_errors.py can still be planted, and the tests that catch them are there."""

import pytest
from planted_errors import ERRORS, ROOT


@pytest.mark.parametrize("name", ERRORS)
def test_it_can_be_planted_and_its_tests_are_there(name: str) -> None:
    planted = ERRORS[name]
    if not callable(planted.old):
        assert (ROOT / planted.file).read_text(encoding="utf-8").count(planted.old) == 1
    for test in planted.caught_by:
        file, _, function = test.partition("::")
        # A name may stand for all that begin with it.
        assert f"def {function.rpartition('::')[2]}" in (ROOT / file).read_text(encoding="utf-8")
