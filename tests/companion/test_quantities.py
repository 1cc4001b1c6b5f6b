"""The registry of the book's numbers, what pages print of it, and what they claim."""

import importlib
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from companion import notebooks, quantities, snapshot, statements
from companion.quantities import Quantity, Value, quantity
from companion.records import records
from cpadapt.errors import InputError

ROOT = Path(__file__).parents[2]
PAGES = [*sorted((ROOT / "notebooks").glob("*.py")), *sorted((ROOT / "book").glob("*.md")), ROOT / "README.md"]
COMMITTED = snapshot.FILE.read_text(encoding="utf-8")
KEPT = snapshot.read(COMMITTED)
"""The committed numbers, which are there at once; that they are the records' is a test of its own."""

LEAD = Quantity("toy.lead", 0.686, ("smollm2",), -0.251, 1.1, 0.95, "points", 1, 100)


def in_code() -> Iterator[str]:
    """The names, or patterns of names, that tables and charts take from the registry."""
    sources = [*(ROOT / "notebooks").glob("*.py"), *(ROOT / "companion").glob("*.py")]
    begins = "|".join(quantities.CHAPTERS)
    for path in sources:
        for found in re.findall(rf'"((?:{begins})\.[\w.{{}}]+)', path.read_text(encoding="utf-8")):
            yield re.sub(r"\{+\w*\}+", "[a-z0-9_]+", found.replace(".", r"\."))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_a_page_prints_is_known(page: Path) -> None:
    for name, style in statements.printed(notebooks.prose(page)):
        assert KEPT[name].text(style)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_a_page_claims_is_so(page: Path) -> None:
    for predicate in statements.claimed(notebooks.prose(page)):
        statements.check(predicate, KEPT)


def test_every_quantity_is_used() -> None:
    """By a page or the README: printed, in a claim or in a table."""
    used = set()
    for text in map(notebooks.prose, PAGES):
        used |= {re.escape(name) for name, _ in statements.printed(text)}
        used |= {re.escape(name) for claim in statements.claimed(text) for name in statements.named(claim)}
    patterns = [re.compile(rf"{name}(\.[\w.]+)?") for name in used | set(in_code())]
    assert [name for name in KEPT if not any(p.fullmatch(name) for p in patterns)] == []


@pytest.mark.slow
def test_the_committed_numbers_are_those_of_the_records() -> None:
    values = quantities.everything()
    changes = snapshot.changes(COMMITTED, values)
    assert changes == [], "what has changed; `make quantities` renews results/quantities.json"
    assert [line.split(":")[0] for line in COMMITTED.splitlines()[1:-1]] == [f'"{name}"' for name in sorted(values)]


def test_the_readme_has_them_too() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert statements.renewed(text, KEPT) == text, "`make quantities` renews the README"


@pytest.mark.parametrize(
    ("style", "printed"),
    [
        ("", "0.7"), ("unit", "0.7 points"), ("interval", "−0.3 to 1.1"), ("full", "0.7 points (−0.3 to 1.1)"),
        ("bare", "0.7 (−0.3 to 1.1)"), ("signed", "+0.7"), ("bare|signed", "+0.7 (−0.3 to +1.1)"), ("2", "0.69"),
        ("full|2", "0.69 points (−0.25 to 1.10)"), ("negated", "−0.7"), ("bare|negated", "−0.7 (−1.1 to 0.3)"),
        ("n", "100"), ("level", "95\u202f%"), ("source", "smollm2"), ("0|unit", "1 point"),
    ],
)  # fmt: skip
def test_how_a_quantity_is_printed(style: str, printed: str) -> None:
    assert LEAD.text(style) == printed


def test_units_signs_and_texts() -> None:
    assert replace(LEAD, unit="percent").text("unit") == "0.7\u202f%"
    assert replace(LEAD, value=2656, digits=0, unit="runs").text("unit") == "2,656 runs"
    assert replace(LEAD, value=-0.02).text("signed") == "0.0", "what rounds to 0 has no sign"
    assert replace(LEAD, value=0.7, unit="").text("unit") == "0.7"
    assert Quantity("toy.cell", "CP 17").text() == "CP 17"
    assert LEAD.about == "smollm2; n = 100; 95\u202f% interval −0.3 to 1.1"


@pytest.mark.parametrize(
    ("found", "style", "said"),
    [
        (LEAD, "ends", "'ends' is not a print style"),
        (replace(LEAD, low=None, high=None), "full", "toy.lead has no interval"),
        (replace(LEAD, n=None), "n", "toy.lead has no n"),
        (Quantity("toy.cell", "CP 17"), "signed|unit", "it is a text"),
    ],
)
def test_what_cannot_be_printed(found: Quantity, style: str, said: str) -> None:
    with pytest.raises(InputError, match=re.escape(said)):
        found.text(style)


def test_an_unknown_name_says_what_was_meant() -> None:
    with pytest.raises(InputError, match=r"no quantity 'noise.first_rnk' \(did you mean 'noise.first_rank'\?\)"):
        quantities.value("noise.first_rnk")
    with pytest.raises(InputError, match=r"no chapter 'nose' \(did you mean 'noise'\?\)"):
        quantities.value("nose.first_rank")


def test_names_are_unique_and_can_be_read() -> None:
    def lead(task: str = "") -> float:
        return 0.007

    lead.__module__ = "companion.quantities.toy"
    with pytest.raises(InputError, match=r"two quantities are named toy\.lead"):
        quantity("points")(quantity("points")(lead))
    with pytest.raises(InputError, match=r"toy\.lead\.0\.5: '0\.5' cannot be part of a name"):
        quantity("points", each=["0.5"])(lead)
    with pytest.raises(InputError, match=r"'low' cannot be part of a name"):
        quantity("points", each=["low"])(lead)
    quantities._registered.pop("toy")


def test_shares_become_points_once_and_means_bring_their_intervals() -> None:
    lead = quantities.value("noise.over_seeds.sst2.lora1_cp11")
    assert (lead.unit, lead.digits, lead.n, lead.level, lead.source) == ("points", 2, 100, 0.95, ("smollm2-seeds",))
    assert lead.low < 0.7 < lead.high < 2, "in points"
    judged = quantities.value("noise.lead_judged_over_seeds.rte")
    assert judged.level == 0.9
    assert judged.low > quantities.value("noise.over_seeds.rte.lora1_cp11").low, "90 % are fewer"
    words = quantities.value("noise.words.dev")
    assert (words.value, words.low) == (7, None)


def test_a_misspelt_study_is_an_error_and_one_not_measured_has_no_records() -> None:
    with pytest.raises(InputError, match=r"no study 'smollm2-seed' in studies \(did you mean 'smollm2-seeds'\?\)"):
        records("smollm2-seed")
    assert len(records("paper")) == 0
    assert len(records("smollm2")) == 171


VALUES = {
    "toy.lead.a": replace(LEAD, name="toy.lead.a", value=0.7, low=0.3, high=1.1),
    "toy.lead.b": replace(LEAD, name="toy.lead.b", value=1.5, low=-0.2, high=3.2),
    "toy.best": Quantity("toy.best", "CP 17"),
    "toy.bare": Quantity("toy.bare", 5),
}


@pytest.mark.parametrize(
    "predicate",
    [
        "toy.lead.a > 0", "0 < toy.lead.a.low < toy.lead.a.high < 2", "toy.lead.b.low < 0 and not toy.lead.a.low < 0",
        "toy.lead.a < 0 or toy.bare == 5", "all(toy.lead > 0)", "any(toy.lead.low > 0)", "max(toy.lead.high) == 3.2",
        "abs(toy.lead.b.low) < 0.3", "min(toy.lead.a, toy.bare) == toy.lead.a", "toy.best == 'CP 17'",
        "toy.bare / 10 - 0.5 == 0 and toy.bare * 2 + 1 == 11", "toy.lead.a.n == 100", "-toy.bare < 0",
        "all(toy.lead.low < toy.lead.high, toy.bare != 6)",
    ],
)  # fmt: skip
def test_a_claim_that_is_so(predicate: str) -> None:
    statements.check(predicate, VALUES)


@pytest.mark.parametrize(
    ("predicate", "said"),
    [
        ("toy.lead.b.low > 0", "is false: toy.lead.b.low = −0.2000"),
        ("all(toy.lead.low > 0)", "is false: toy.lead.low = [0.3000, −0.2000]"),
        ("toy.leed.a > 0", "no quantity 'toy.leed.a' (did you mean 'toy.lead.a'?)"),
        ("toy.bare.low > 0", "toy.bare has no low"),
        ("toy.lead.low > 0", "of several things say all(…) or any(…)"),
        ("toy.bare", "of several things say all(…) or any(…)"),
        ("toy.bare > 0 and toy.bare", "neither true nor false"),
        ("toy.best > 1", "cannot be judged"),
        ("toy.bare >", "is not a valid predicate"),
        ("__import__('os')", "is not allowed in a predicate"),
        ("toy.bare ** 2 > 1", "is not allowed in a predicate"),
        ("[toy.bare][0] > 1", "is not allowed in a predicate"),
    ],
)
def test_a_claim_that_is_not(predicate: str, said: str) -> None:
    with pytest.raises(InputError, match=re.escape(said)):
        statements.check(predicate, VALUES)


def test_roles_and_marks_are_found_across_lines() -> None:
    text = (
        "It leads by {q}`toy.lead.a|full`\n{says}`toy.lead.a.low\n> 0`, <!--q toy.lead.b|2-->1.49<!--/q--> there."
        "<!--says toy.bare > 0-->"
    )
    assert list(statements.printed(text)) == [("toy.lead.a", "full"), ("toy.lead.b", "2")]
    assert list(statements.claimed(text)) == ["toy.lead.a.low > 0", "toy.bare > 0"]
    assert "<!--q toy.lead.b|2-->1.50<!--/q--> there" in statements.renewed(text, VALUES)
    with pytest.raises(InputError, match=r"no quantity 'toy\.no'"):
        statements.renewed("<!--q toy.no-->1<!--/q-->", VALUES)


def test_a_snapshot_says_what_has_changed() -> None:
    kept = snapshot.text(VALUES)
    assert snapshot.changes(kept, VALUES) == []
    lead = VALUES["toy.lead.a"]
    assert snapshot.changes(kept, VALUES | {lead.name: replace(lead, value=0.7004)}) == [], "how machines round"
    for other in (replace(lead, value=0.71), replace(lead, low=None, high=None, level=None), replace(lead, n=99),
                  replace(lead, source=("smollm2-seeds",)), replace(lead, digits=2)):  # fmt: skip
        (change,) = snapshot.changes(kept, VALUES | {lead.name: other})
        assert change.startswith("toy.lead.a: ")
    fewer = {name: known for name, known in VALUES.items() if name != "toy.best"} | {"toy.new": VALUES["toy.bare"]}
    assert snapshot.changes(kept, fewer) == ["toy.new is new", "toy.best is gone"]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """As much of the project as `key` reads for one small study."""
    for folder in (*quantities.CODE, "studies", "book"):
        path = ROOT / folder
        if path.is_dir():
            shutil.copytree(path, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(path, tmp_path / folder)
    for path in (ROOT / "results").iterdir():
        if path.is_dir():  # of the others their names are enough
            (tmp_path / "results" / path.name).mkdir(parents=True)
    shutil.copytree(ROOT / "results" / "small-tiny", tmp_path / "results" / "small-tiny", dirs_exist_ok=True)
    return tmp_path


def test_what_is_kept_counts_until_something_that_it_comes_from_changes(project: Path) -> None:
    def key() -> str:
        return quantities.key("noise", ["small-tiny"], project)

    before = key()
    assert key() == before == quantities.key("noise", ["small-tiny"])
    (project / "companion/quantities/other.py").write_text("")
    (project / "book/glossary.md").write_text("")
    assert key() == before, "another chapter, and prose"
    (record,) = (project / "results/small-tiny").glob("*.jsonl.xz")
    for path in (record, project / "companion/quantities/noise.py", project / "companion/noise.py",
                 project / "cpadapt/analysis/statistics.py", project / "book/published.toml",
                 project / "studies/small-tiny.toml"):  # fmt: skip
        content = path.read_bytes()
        path.write_bytes(content + b"\n")
        assert key() != before, path
        path.write_bytes(content)
    assert key() == before
    (project / "results/another").mkdir()
    assert key() != before, "quantities may be there that were not"


def test_a_chapter_names_the_studies_that_it_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    def silent() -> Value:
        records("small-tiny")
        return Value(0.5, n=3)

    importlib.import_module("companion.quantities.use_in_peft")  # which registers, once a process, what is put back
    for source, said in (
        ((), "records of 'small-tiny' are read"),
        ("none-such", "the source 'none-such' is neither a study"),
    ):
        monkeypatch.setattr(quantities.companion.records, "read", set())
        registered = {"use_in_peft.silent": quantities._Registered(silent, (), "percent", 0, 0.95, source)}
        monkeypatch.setitem(quantities._registered, "use_in_peft", registered)
        with pytest.raises(InputError, match=said):
            quantities.compute("use_in_peft")
    registered = {"use_in_peft.silent": quantities._Registered(silent, (), "percent", 0, 0.95, "small-tiny")}
    monkeypatch.setitem(quantities._registered, "use_in_peft", registered)
    assert quantities.compute("use_in_peft")["use_in_peft.silent"].text("unit") == "50\u202f%"


@pytest.mark.slow
def test_a_wrong_number_or_claim_stops_the_build(tmp_path: Path) -> None:
    """The roles' warnings, which the build takes for errors, name the page and the number."""
    from sphinx.application import Sphinx

    (tmp_path / "index.md").write_text(
        "# Page\n\nAhead by {q}`noise.first_rank|full`. {says}`noise.first_rank.low > 0`\n\n{q}`noise.no`\n\n"
        "Behind. {says}`noise.first_rank < 0`\n"
    )
    warnings, extensions = tmp_path / "warnings", ["myst_parser", "sphinx.ext.autodoc", "companion.sphinx"]
    with warnings.open("w+") as said:
        app = Sphinx(
            tmp_path, None, tmp_path / "out", tmp_path / "doctrees", "dummy", status=None, warning=said,
            confoverrides={"extensions": extensions, "html_theme_options": {}},
        )  # fmt: skip
        app.build()
    said = warnings.read_text()
    assert "index.md:5: WARNING: no quantity 'noise.no'" in said
    assert "index.md:7: WARNING: 'noise.first_rank < 0' is false: noise.first_rank = 0.79" in said
    assert said.count("WARNING") == 2
    printed = app.env.get_doctree("index").astext()
    assert quantities.value("noise.first_rank").text("full") in printed
    assert "says" not in printed
