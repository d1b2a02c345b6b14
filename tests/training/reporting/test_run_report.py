"""The report is one file that holds the numbers of the run's own records and fetches nothing."""

import base64
import json
import re
from html.parser import HTMLParser

import pytest
import watching

from meduet_training.reporting.card import CARD
from meduet_training.reporting.report import TIMING, number, write_report
from meduet_training.runtime.row_log import read_rows
from napari_meduet.errors import InputError

ADDRESSES = {"src", "href", "data", "action", "poster", "srcset", "xlink:href"}
VOID = {"meta", "img", "br", "link", "input", "hr", "use", "path"}


class Page(HTMLParser):
    """What a browser would see of a page.

    Attributes:
        text: all words, without styles.
        addresses: of everything it would fetch or lead to.
        ids: in order.
        open: tags that were not closed.
    """

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text, self.addresses, self.ids, self.charts = "", [], [], []
        self.open: list[str] = []
        self.feed(html)
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.addresses += [value for name, value in attrs if name in ADDRESSES]
        self.ids += [found["id"]] if "id" in found else []
        self.charts += [found["aria-label"]] if tag == "svg" else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += f" {data}"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run's folder, panels after 20, 40 and 61 steps."""
    folder = tmp_path_factory.mktemp("runs") / "a <b>run"
    looking = watching.run(folder, validate_after=(20, 40, 61))
    looking.on_end(watching.STEPS, watching.objective())
    looking.close("finished")
    return folder


@pytest.fixture(scope="module")
def html(finished):
    return (finished / "report.html").read_text("utf-8")


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


def test_it_is_whole_and_asks_nothing_from_elsewhere(html, page):
    assert page.open == []
    assert all(address.startswith(("data:image/png;base64,", "#")) for address in page.addresses)
    assert not re.search(r"@import|url\((?!#)|<script|<link|<iframe", html)
    assert len(page.ids) == len(set(page.ids))


def test_names_of_the_run_are_text_and_nothing_else(html, page):
    assert "<b>run" not in html
    assert page.text.startswith("a <b>run: training report")


def test_it_holds_the_numbers_of_the_records(finished, page):
    factors = json.loads((finished / "factors" / "factors.json").read_text())
    for name in ("style", "content"):
        found = factors["factors"][name]
        for each in (found["probe"]["accuracy"], found["silhouette"]):
            told = f"{number(each['value'])} ({number(each['low'])} to {number(each['high'])})"
            assert told in page.text
    probe = factors["factors"]["style"]["probe"]
    assert f"chance {number(probe['chance'])}, majority {number(probe['majority'])}" in page.text
    assert f"{factors['num_samples']} samples of {factors['num_patients']} patients" in page.text
    assert factors["extractor_sha256"][:16] in page.text
    last = read_rows(finished / "log.jsonl")[-1]
    assert f"loss {number(last['loss/total'])} at step 60" in page.text
    assert "median step time, s 0.25" in page.text
    assert "10.0%" in page.text  # of a step waiting for data
    card = json.loads((finished / CARD).read_text())
    for word in (card["data"]["sha256"], card["data"]["tokenizer_sha256"], card["sessions"][0]["python"]):
        assert word in page.text
    assert "61 of 61 steps, never resumed: finished." in page.text
    assert "objective.pairing random" in page.text


def test_every_logged_quantity_has_a_chart(finished, page):
    charts = " | ".join(page.charts)
    for name in read_rows(finished / "log.jsonl")[0]:
        group, _, rest = name.partition("/")
        title = {"loss": rest, "features": f"norm of {rest}", "time": TIMING.get(name, "")}.get(
            group, rest.replace("_", " ")
        )
        assert name == "step" or title in charts, name
    for title in (
        "balanced accuracy of the domain probes",
        "t-SNE map of style s₀",
        "t-SNE map of content c₀",
    ):
        assert title in charts


def test_charts_take_the_ink_of_the_page(html):
    chart = html[html.index("<svg") : html.index("</svg>")]
    assert "currentColor" in chart
    assert "#010203" not in html
    assert "#000000" not in chart


def test_the_first_the_middle_and_the_last_panel_are_in_it(finished, page):
    pictures = [address.split(",", 1)[1] for address in page.addresses if address.startswith("data:")]
    panels = sorted((finished / "panels").glob("*.png"))
    assert [path.name for path in panels] == [f"step-000000{step}-CT.png" for step in (20, 40, 61)]
    assert [base64.b64decode(picture) for picture in pictures] == [path.read_bytes() for path in panels]
    assert "CT after 20 steps CT after 40 steps CT after 61 steps" in page.text


def test_a_run_that_was_killed_early_has_a_report_that_says_what_is_missing(tmp_path):
    folder = tmp_path / "run"
    watching.run(folder, last=25)
    text = Page(write_report(folder).read_text("utf-8")).text
    assert "running, or killed" in text
    assert "No panel was drawn" in text
    assert "meduet-evaluate factors analyses them" in text


def test_a_folder_that_is_no_run_is_told_in_a_sentence(tmp_path):
    with pytest.raises(InputError, match=r"holds no run\.json, so it is not a run"):
        write_report(tmp_path)
    (tmp_path / CARD).write_text("{")
    with pytest.raises(InputError, match=r"run\.json: this file is not a valid run card"):
        write_report(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [CARD]


def test_factors_that_are_damaged_are_told_in_a_sentence(tmp_path):
    folder = tmp_path / "run"
    watching.run(folder, last=1).close("stopped")
    (folder / "factors").mkdir()
    (folder / "factors" / "factors.json").write_text('{"seed": ')
    with pytest.raises(InputError, match=r"factors/factors\.json: this file is damaged. Delete it"):
        write_report(folder)
