"""The page in headless Chromium: what a reader does with it, with the keyboard, on a phone and in the dark.

Skipped where there is no Chromium (Debian: `apt-get install chromium`; or name one in CHROMIUM) or no Playwright. With
BOARD_SCREENSHOT=docs/figures/board.png the last test writes the picture of the README.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from record_factory import make_cell

from harness.bill import Bill
from harness.numbers.robustness import Cell
from harness.records.record import Record
from harness.records.sections import Flag
from harness.search.curve import Searches, Trial, curve
from leaderboards.html.page import page
from leaderboards.load import Results, Skipped, load_results
from leaderboards.ranking import rank
from leaderboards.standing import suite_attacks

BINARY = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
PICTURE = Path(__file__).parents[2] / "docs" / "figures" / "board.png"
"""Of the README; beside it, what it shows as text."""
PUBLISHED = Path(__file__).parents[2] / "leaderboards" / "results"
BAD = "<img src=x onerror=\"document.title='broken'\">\u202e</script>'\"&amp;{{7*7}}"
pytestmark = pytest.mark.skipif(BINARY is None, reason="no chromium here")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=BINARY)
        yield running
        running.close()


class Reader:
    """Opens pages; whatever the console says, or the page asks the network for, is remembered."""

    def __init__(self, browser: Any, folder: Path) -> None:
        self.browser, self.folder = browser, folder
        self.said: list[str] = []
        self.asked: list[str] = []

    def open(self, text: str, address: str = "", **context: Any) -> Any:
        file = self.folder / "board.html"
        file.write_text(text, encoding="utf-8")
        view = self.browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **context}).new_page()
        view.on("console", lambda message: self.said.append(message.text))
        view.on("pageerror", lambda error: self.said.append(str(error)))
        view.on("request", lambda request: self.asked.append(request.url))
        view.goto(file.as_uri() + address)
        view.wait_for_selector("main h1:visible")
        return view


@pytest.fixture
def reader(browser: Any, tmp_path: Path) -> Iterator[Reader]:
    """No test leaves a word on the console, an error, or a request beyond the file itself."""
    found = Reader(browser, tmp_path)
    yield found
    for context in browser.contexts:
        context.close()
    assert found.said == []
    assert [url for url in found.asked if not url.startswith(("file:", "data:"))] == []


@pytest.fixture(scope="module")
def text() -> str:
    return page(Results(cells(), [Skipped("0123", "unfinished")]))


def cells() -> list[Cell]:
    """Three locks on one task, one on another; a search, layers, an attacker with the secret, one out of memory."""
    found = [make_cell(defense=defense, attack=attack, recovery=recovery, utility=0.97, knowledge=knows)
             for defense, recovery in (("none", 1.0), ("weak", 0.6), ("strong", 0.1))
             for attack, knows in (("lora", "recipe"), ("full", "family"))]  # fmt: skip
    found += [make_cell(defense="strong", attack="mezo", recovery=0.5, utility=0.97)]
    found += [make_cell(defense="weak", attack="qlora", status="out_of_memory", reason="8 GiB were not enough")]
    found += [make_cell(defense="weak", attack="authorised", recovery=1.0, knowledge="secret")]
    found += [make_cell(defense="none", task="facts", budget={"steps": 5})]
    return [with_search(cell) if cell.record.name("defense") == "strong" else cell for cell in found]


def with_search(cell: Cell) -> Cell:
    trials = [Trial(number=number, outcome="complete", params={"learning_rate": 10.0 ** -(number + 1)},
                    score=-2.0 + 0.1 * number, bill=Bill(forward_flops=1e9)) for number in range(4)]  # fmt: skip
    given = {"name": cell.record.name("attack"), "learning_rate": 1e-3}
    searches = Searches(attacked=curve(trials, given), reference=curve(trials[:2], given))
    layers = {f"model.layers.{index}.mlp": 0.1 * index for index in range(3)}
    return Cell(cell.record.model_copy(update={"search": searches, "layer_errors": layers}), cell.items)


def names(view: Any) -> list[str]:
    return [link.inner_text() for link in view.query_selector_all("#ranking tbody a")]


def column(view: Any, title: str) -> list[str]:
    """The texts of one column of the ranking."""
    heads = [head.text_content() for head in view.query_selector_all("#ranking thead th")]
    cells = view.query_selector_all(f"#ranking tbody tr > :nth-child({heads.index(title) + 1})")
    return [cell.inner_text() for cell in cells]


def wait_for_rows(view: Any, number: int) -> None:
    """The ranking follows what is typed after a moment."""
    from playwright.sync_api import expect

    expect(view.locator("#ranking tbody tr")).to_have_count(number)


def test_the_ranking_is_that_of_the_rows_with_ties_marked(reader: Reader, text: str) -> None:
    view = reader.open(text)
    assert names(view) == [row.defense for row in rank(cells())]
    tied = [make_cell(defense=name, recovery=recovery) for name, recovery in (("a", 0.5), ("b", 0.505), ("c", 0.99))]
    view = reader.open(page(Results(tied, [])))
    assert [rank.split() for rank in column(view, "rank")] == [["1", "=", "tied"], ["1", "=", "tied"], ["3"]]


def test_the_suite_is_counted_as_in_every_other_format(reader: Reader, text: str) -> None:
    """Of the attacks of the suite those count that fit the task: `linear_probe` is for classifiers alone."""
    standings = {row.defense: row.standard for row in rank(cells()) if row.task == "python_source"}
    view = reader.open(text, "#task=python_source")
    assert len(names(view)) == len(standings)
    for name, shown in zip(names(view), column(view, "standard suite"), strict=True):
        counted = standings[name].n_suite - len(standings[name].missing)
        assert f"\n{counted} of {standings[name].n_suite} attacks" in shown
    assert {standing.n_suite for standing in standings.values()} == {len(suite_attacks("python_source"))}
    view.click("#ranking tbody a")
    view.wait_for_selector("#view-lock h1")
    assert f" of {len(suite_attacks('python_source'))} attacks, rank" in view.inner_text("#view-lock")


def test_columns_sort_both_ways_and_say_so(reader: Reader, text: str) -> None:
    view = reader.open(text, "#task=python_source")
    button = view.locator("#ranking thead button", has_text="lock")
    button.first.click()
    assert names(view) == ["none", "strong", "weak"]
    assert view.get_attribute("#ranking th:has(button:text-is('lock'))", "aria-sort") == "ascending"
    button.first.click()
    assert names(view) == ["weak", "strong", "none"]
    assert view.get_attribute("#ranking th:has(button:text-is('lock'))", "aria-sort") == "descending"
    view.locator("#ranking thead button", has_text="robustness").click()
    assert names(view)[0] == "strong"
    assert "sort=robustness" in view.url
    view.reload()
    view.wait_for_selector("#ranking tbody tr")
    assert names(view) == ["strong", "weak", "none"]


def test_filters_narrow_ranking_heat_map_and_cells(reader: Reader, text: str) -> None:
    view = reader.open(text)
    view.select_option("#f-task", "facts")
    assert names(view) == ["none"]
    assert view.locator("#cells tbody tr:not(.detail)").count() == 1
    assert view.locator("#heat table").count() == 1
    view.click("#f-reset")
    view.select_option("#f-budget", "steps=100")
    assert sorted(names(view)) == ["none", "strong", "weak"]
    view.fill("#f-text", "mezo")
    wait_for_rows(view, 1)
    assert names(view) == ["strong"]
    assert "1 of 4" in view.inner_text("#f-count")
    view.fill("#f-text", "no such lock")
    wait_for_rows(view, 0)


def test_models_are_filtered(reader: Reader) -> None:
    cells = [make_cell(model=model, defense=f"lock of {model}") for model in ("one", "other")]
    view = reader.open(page(Results(cells, [])))
    assert sorted(names(view)) == ["lock of one", "lock of other"]
    view.select_option("#f-model", "other")
    assert names(view) == ["lock of other"]
    assert view.locator("#cells tbody tr:not(.detail)").count() == 1


def test_what_attackers_know_changes_ranks_and_never_lets_the_secret_count(reader: Reader, text: str) -> None:
    view = reader.open(text, "#task=python_source")
    by_name = dict(zip(names(view), column(view, "worst attack"), strict=True))
    assert by_name["strong"] == "mezo"
    assert "authorised" not in by_name.values()
    view.select_option("#f-knowledge", "recipe")
    assert set(column(view, "worst attack")) == {"lora"}
    assert "full" not in [head.inner_text() for head in view.query_selector_all("#heat thead th")]
    assert "mezo" not in view.inner_text("#cells")


def test_a_lock_opens_with_charts_heat_map_cells_and_the_command(reader: Reader, text: str) -> None:
    view = reader.open(text)
    view.click("#ranking tbody a:text-is('strong')")
    view.wait_for_selector("#view-lock h1")
    assert view.evaluate("document.activeElement.tagName") == "H1"
    titles = [title.inner_text() for title in view.query_selector_all("figure h3")]
    assert titles == ["Recovery against FLOPs", "Recovery against memory", "Sensitivity to the learning rate",
                      "Best so far over trials", "Distillation error by layer"]  # fmt: skip
    assert view.locator("figure canvas[role=img]").count() == 5
    pixels = "c => new Uint32Array(c.getContext('2d').getImageData(0, 0, c.width, c.height).data.buffer)"
    for canvas in view.query_selector_all("figure canvas"):
        assert canvas.evaluate(f"c => new Set(({pixels})(c)).size") > 3
    assert view.locator("#view-lock table.heat tr.here").count() == 1
    assert "<<'SPEC'" in view.inner_text("#view-lock > div:last-child pre")
    view.go_back()
    view.wait_for_selector("#ranking tbody tr")
    assert view.is_visible("#view-board")


def test_a_cell_shows_flags_bills_and_a_command_that_copies(reader: Reader) -> None:
    flag = Flag(flag="odd", severity="warning", detail="something is odd")
    cell = make_cell(flags=(flag,))
    view = reader.open(page(Results([cell], [])))
    view.click("#cells button.open")
    shown = view.inner_text("td.detail")
    assert "warning: odd: something is odd" in shown
    assert "kept for backward" in shown
    view.context.grant_permissions(["clipboard-read", "clipboard-write"])
    view.click("td.detail button.copy")
    view.wait_for_selector("button.copy:text-is('Copied')")
    assert view.evaluate("navigator.clipboard.readText()").startswith("harness run --config")
    view = reader.open(page(Results([cell], [])), f"#view=cell&id={cell.record.id[:8]}")
    assert cell.record.id in view.inner_text("#view-cell")


def test_everything_works_by_keyboard(reader: Reader, text: str) -> None:
    view = reader.open(text)
    view.keyboard.press("Tab")
    assert view.evaluate("document.activeElement.id") == "skip"
    view.keyboard.press("Enter")
    assert view.evaluate("document.activeElement.id") == "main"
    view.focus("#ranking thead button:text-is('lock')")
    view.keyboard.press("Enter")
    assert view.evaluate("document.activeElement.textContent") == "lock"  # the focus stays where it was
    view.keyboard.press("Space")
    assert view.get_attribute("#ranking th:has(button:text-is('lock'))", "aria-sort") == "descending"
    view.focus("#cells button.open")
    view.keyboard.press("Enter")
    assert view.get_attribute("#cells button.open", "aria-expanded") == "true"
    assert view.is_visible("td.detail pre")
    view.focus("#ranking tbody a")
    view.keyboard.press("Enter")
    view.wait_for_selector("#view-lock h1")


def test_every_control_has_a_name_and_every_table_a_caption(reader: Reader, text: str) -> None:
    view = reader.open(text)
    link = view.get_attribute("#ranking tbody a", "href")
    for address in ("", link):
        view = reader.open(text, address)
        unnamed = """[...document.querySelectorAll('button, a, select, input')].filter((e) => e.checkVisibility()
            && !(e.textContent.trim() || e.getAttribute('aria-label') || e.labels?.length)).length"""
        assert view.evaluate(unnamed) == 0
        assert view.evaluate("[...document.querySelectorAll('table')].every((t) => t.caption && t.tHead)")


def test_a_phone_scrolls_tables_and_not_the_page(reader: Reader, text: str) -> None:
    view = reader.open(text, viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    assert view.evaluate("document.documentElement.scrollWidth") <= 360
    view.click("#cells button.open")
    assert view.is_visible("td.detail")
    assert view.evaluate("document.documentElement.scrollWidth") <= 360
    view.click("#ranking tbody a")
    view.wait_for_selector("#view-lock h1")
    assert view.evaluate("document.documentElement.scrollWidth") <= 360


def luminance(colour: str) -> float:
    """Relative luminance of `#rrggbb` (WCAG 2)."""
    parts = [int(colour.strip()[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(reader: Reader, text: str, scheme: str) -> None:
    view = reader.open(text, color_scheme=scheme)
    names = ("--paper", "--raised", "--ink", "--soft", "--link", "--bad")
    light = {name: luminance(view.evaluate(f"getComputedStyle(document.body).getPropertyValue('{name}')"))
             for name in names}  # fmt: skip
    for ground in ("--paper", "--raised"):
        for name in ("--ink", "--soft", "--link", "--bad"):
            high, low = sorted((light[name], light[ground]), reverse=True)
            assert (high + 0.05) / (low + 0.05) >= 4.5, (name, ground)
    assert (light["--paper"] < 0.2) == (scheme == "dark")


def hostile(record: Record, but: tuple[str, ...] = ()) -> Record:
    """Hostile text wherever a record takes any: every text and every key of what has keys of its own.

    Args:
        record: the rest of it stays.
        but: keys that stay.
    """
    document = record.model_dump(mode="json")

    def valid() -> bool:
        try:
            return bool(Record.model_validate(document))
        except ValidationError:
            return False

    def spoil(node: Any) -> None:
        for key, old in list(node.items() if isinstance(node, dict) else enumerate(node)):
            if isinstance(old, (dict, list)):
                spoil(old)
            elif (old is None or isinstance(old, str)) and key not in but:
                node[key] = BAD
                if not valid():
                    node[key] = old
        if isinstance(node, dict):
            node[BAD] = [*node.values(), BAD][0]
            if not valid():
                del node[BAD]

    spoil(document)
    return Record.model_validate(document)


def test_hostile_strings_show_as_text(reader: Reader) -> None:
    error = (Flag(flag="f", severity="error", detail="d"),)
    everywhere = {"defense": BAD, "task": BAD, "model": BAD, "budget": {"steps": 5}, "utility": 0.97}
    made = [make_cell(attack={"name": BAD, "rank": 8}, **everywhere), make_cell(flags=error, **everywhere)]
    ranked, wrong = (with_search(cell) for cell in made)
    ranked = Cell(hostile(ranked.record, but=("metric",)), ranked.items)
    assert ranked.record.model_dump_json().count("{{7*7}}") > 90
    bad = Results([ranked, Cell(hostile(wrong.record), wrong.items)], [Skipped(BAD, BAD)])
    text = page(bad, title=BAD)
    shown = BAD.replace("\u202e", "\\u202e")
    view = reader.open(text)
    assert view.title() == BAD
    assert names(view) == [shown]
    view.click("#cells button.open")
    assert shown in view.inner_text("td.detail")
    view.click("#ranking tbody a")
    view.wait_for_selector("#view-lock h1")
    assert view.inner_text("#view-lock h1") == shown
    for cell in bad.cells:
        view = reader.open(text, f"#view=cell&id={cell.record.id}")
        assert shown in view.inner_text("#view-cell h1")
        assert view.title() == BAD
        assert view.locator("img").count() == 0
    view = reader.open(text, "#view=" + BAD.replace("&", "%26"))  # hostile addresses lead to the first view
    assert view.is_visible("#view-board")


@pytest.mark.slow
def test_thousands_of_cells_show_a_page_at_a_time(reader: Reader) -> None:
    one = make_cell()
    many = [Cell(one.record.model_copy(update={"id": f"{index:016x}", "spec": {**one.record.spec, "seed": index}}), ())
            for index in range(3000)]  # fmt: skip
    view = reader.open(page(Results([one, *many], []), rows=rank([one])))
    assert view.locator("#cells tbody tr:not(.detail)").count() == 25
    assert "page 1 of 121" in view.inner_text("#cells .pager")
    view.click("#cells .pager button:text-is('Next')")
    assert "page 2 of 121" in view.inner_text("#cells .pager")
    assert "page=1" in view.url
    view.locator("#cells thead button", has_text="seed").click()
    assert "page 1 of 121" in view.inner_text("#cells .pager")


@pytest.mark.slow
def test_the_picture_of_the_readme(reader: Reader, tmp_path: Path) -> None:
    found = [cell for name in ("tiny", "locks") for cell in load_results(PUBLISHED / name, utility=False).cells]
    view = reader.open(page(Results(found, [])), viewport={"width": 1400, "height": 1010})
    target = Path(os.environ.get("BOARD_SCREENSHOT") or tmp_path / "board.png")
    view.screenshot(path=target)
    assert target.read_bytes().startswith(b"\x89PNG")
    assert view.locator("#heat table").count() == 1
    shown = f"{view.inner_text('#ranking')}\n{view.inner_text('#heat')}\n"
    if "BOARD_SCREENSHOT" in os.environ:
        target.with_suffix(".txt").write_text(shown, encoding="utf-8")
    stale = "the records say something else than the README's picture: make it again (CONTRIBUTING.md)"
    assert PICTURE.with_suffix(".txt").read_text(encoding="utf-8") == shown, stale


@pytest.mark.parametrize(("file", "locks"), [
    ("board.html", ["dlr", "none", "pmp", "specdef", "specdef_reparam"]),
    ("standard.html", ["dlr", "pmp", "specdef", "specdef_reparam"]),
])  # fmt: skip
def test_the_published_pages_open(reader: Reader, file: str, locks: list[str]) -> None:
    """Every lock against every attack, and under the searched suite."""
    view = reader.open((PUBLISHED.parents[1] / "docs" / file).read_text(encoding="utf-8"))
    assert sorted(names(view)) == locks
    view.click("#ranking tbody a >> text=specdef_reparam")
    view.wait_for_selector("h1:visible >> text=specdef_reparam")
    assert "undo_specdef_reparam" in view.inner_text("main")
