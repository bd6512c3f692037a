"""The speed report: what is written, what is drawn, what stays out; on made-up results."""

from __future__ import annotations

import copy
import csv
import json
import re
import sys
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from pipelines.measure.report import style as speed_style
from pipelines.measure.report.report import markdown_tables, write_report
from pipelines.measure.report.rows import (
    first_token_operations,
    first_token_seconds,
    flatten,
    fronts,
    groups,
    labels,
    value,
)
from tests.pipelines.measure.report.speed_example import RIVALS, results
from videoprune.eval.labels import overlap


class Page(HTMLParser):
    """Tags in their order, texts, and whether every tag is closed."""

    VOID = frozenset({"meta", "br", "img", "use"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    pytest.importorskip("matplotlib")
    folder, made = tmp_path_factory.mktemp("report"), results()
    return made, folder, write_report(made, folder)


def test_files_hold_the_results(report):
    made, folder, files = report
    assert {p.name for p in files} == {
        "results.json",
        "results.csv",
        "report.html",
        "accuracy-by-first-token.png",
        "accuracy-by-operations.png",
        "stages.png",
        "layers.png",
        "kept-tokens.png",
    }
    assert all(p.read_bytes()[:4] == b"\x89PNG" for p in files if p.suffix == ".png")
    assert json.loads((folder / "results.json").read_text()) == made
    with (folder / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(made["rows"])
    for flat, row in zip(rows, made["rows"], strict=True):
        assert float(flat["seconds.first_token.median"]) == row["seconds"]["first_token"]["median"]
        assert flat["peak_bytes"] == ("" if row["peak_bytes"] is None else str(row["peak_bytes"]))
        assert [float(x) for x in flat["tokens.llm_layers"].split(";")] == row["tokens"]["llm_layers"]


def test_the_page_stands_alone_and_says_everything(report):
    made, folder, _ = report
    text = (folder / "report.html").read_text()
    page = Page(text)
    assert page.open == []
    fetched = [a for _, attrs in page.tags for k, a in attrs.items() if k in ("src", "href", "xlink:href")]
    assert all(a.startswith(("data:", "#")) for a in fetched)
    assert not re.search(r"@import|url\((?!#)", text)
    words = " ".join(page.words)
    for row in made["rows"]:
        if row["method"] in RIVALS:
            assert f"{row['method']} {100 * row['retention']:.1f} %" in words
    for told in ("2 cores <x>", "videoprune speedup --model x", "needs a CLS token", "2.13", "unpruned"):
        assert told in words
    ids = [a["id"] for t, a in page.tags if "id" in a and t != "path" and t != "symbol"]
    drawn = [i for i in ids if "point-" in i]
    assert len(drawn) == len(set(drawn)) == 2 * len(made["rows"]), "against time and against operations"
    for svg in re.findall(r"<svg.*?</svg>", text, re.S):
        ElementTree.fromstring(svg)
        assert "var(--ink)" in svg
        assert speed_style.INK not in svg


def test_accuracy_stands_against_time_and_against_operations(report):
    made, folder, _ = report
    text = (folder / "report.html").read_text()
    plots = re.findall(r'<svg[^>]*aria-label="(.*?)".*?</svg>', text, re.S)
    assert plots[:2] == [
        "accuracy against time to first token",
        "accuracy against operations up to the first token",
    ]
    notes = re.findall(r'<g id="g8x1d-point-\d+"><title>(.*?)</title>', text)
    rows = groups(made["rows"])[0].rows
    for row, note in zip(rows, notes, strict=True):
        flops = sum(row["flops"].get(stage, 0) for stage in ("encoder", "prune", "prefill"))
        assert note.endswith(f"{flops / 1e9:.3g} Gflop up to the first token")


def test_the_table_of_the_page_holds_sortable_numbers(report):
    made, folder, _ = report
    text = (folder / "report.html").read_text()
    body = re.search(r"<tbody>(.*?)</tbody>", text, re.S).group(1)
    shown = re.findall(r"<tr class=\"(\w+)\">(.*?)</tr>", body, re.S)
    group = groups(made["rows"])[0]
    assert len(shown) == len(group.rows)
    head = re.search(r"<thead>(.*?)</thead>", text, re.S).group(1)
    heads = re.findall(r"<button type=\"button\">(.*?)</button>", head)
    at = heads.index("first token s")
    for (kind, cells), row in zip(shown, group.rows, strict=True):
        data = re.findall(r'data-v="(.*?)"', cells)
        assert len(data) == len(heads)
        assert float(data[at]) == row["seconds"]["first_token"]["median"]
        assert kind == ("base" if row["method"] == "none" else "ours" if row["ours"] else "rival")


def test_names_in_the_plot_do_not_cover_each_other():
    pytest.importorskip("matplotlib")
    from pipelines.measure.report.style import looks
    from pipelines.measure.report.trade_off import trade_off

    for seed in range(2):
        group = groups(results(seed=seed)["rows"])[0]
        fig, notes = trade_off(group, looks(group.rows))
        renderer = fig.canvas.get_renderer()
        names = [t for t in fig.axes[0].texts if t.get_text() in group.labels]
        assert sorted(t.get_text() for t in names) == sorted(group.labels)
        boxes = [t.get_window_extent(renderer).extents for t in names]
        for i, box in enumerate(boxes):
            assert all(overlap(tuple(box), tuple(other)) < 1.0 for other in boxes[:i])
        assert len(notes) == len(group.rows)


def test_in_a_crowd_ours_the_front_and_the_best_rivals_are_named(monkeypatch):
    pytest.importorskip("matplotlib")
    from pipelines.measure.report import trade_off as speed_trade_off
    from pipelines.measure.report.style import looks

    monkeypatch.setattr(speed_trade_off, "MOST_NAMES", 5)
    group = groups(results(seed=0)["rows"])[0]
    look = looks(group.rows)
    fig, notes = speed_trade_off.trade_off(group, look)
    shown = {t.get_text() for t in fig.axes[0].texts}
    assert any("best at each share are named" in t for t in shown)
    assert len(notes) == len(group.rows)
    rivals: dict[float, list[tuple[float, str]]] = {}
    for row, label in zip(group.rows, group.labels, strict=True):
        if look[row["method"]].ours or row["method"] == "none":
            assert label in shown
        else:
            rivals.setdefault(row["retain"], []).append((row["accuracy"]["all"], label))
    for found in rivals.values():
        assert max(found)[1] in shown
    assert sum(len(found) for found in rivals.values()) > sum(
        name in shown for found in rivals.values() for _, name in found
    )


def test_without_accuracy_the_plot_shows_tokens_and_says_so(tmp_path):
    pytest.importorskip("matplotlib")
    made = results(measured=False, shares=(0.25,), loads=(1, 8))
    names = {p.name for p in write_report(made, tmp_path / "new" / "folder")}
    assert {
        "tokens-kept-by-first-token-8f-1c.png",
        "tokens-kept-by-first-token-8f-8c.png",
        "throughput.png",
    } <= names
    text = (tmp_path / "new" / "folder" / "report.html").read_text()
    assert "Accuracy was not measured" in text
    assert "correct %" not in text
    assert "accuracy was not measured" in markdown_tables(made)


def test_little_is_enough(tmp_path):
    pytest.importorskip("matplotlib")
    bare = {"method": "none", "retain": 1.0, "retention": 1.0, "frames": 8, "concurrency": 1, "ours": False}
    row = {**bare, "seconds": {"first_token": {"median": 1.0}}}
    made = {**results(), "refused": [], "frames": []}
    write_report({**made, "rows": [row]}, tmp_path)
    assert "Kept tokens" not in (tmp_path / "report.html").read_text()
    write_report({**made, "rows": []}, tmp_path)


def test_without_matplotlib_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ValueError, match=r"videoprune\[report\]"):
        write_report(results(), tmp_path)
    assert (tmp_path / "results.csv").is_file()


def test_groups_labels_and_flat_rows():
    made = results(loads=(4, 1), shares=(0.5, 0.1))["rows"]
    found = groups(list(reversed(made)))
    assert [(g.frames, g.concurrency) for g in found] == [(8, 1), (8, 4)]
    kept = {(r["method"], r["retain"]): r["retention"] for r in made if r["concurrency"] == 1}
    names = [f"both {100 * kept['both', share]:.1f} %" for share in (0.5, 0.1)]
    assert found[0].labels[:3] == ("unpruned", *names)
    assert [r["ours"] for r in found[0].rows[1:]] == sorted(
        (r["ours"] for r in found[0].rows[1:]), reverse=True
    )
    twin = {"method": "a", "retain": 0.3, "retention": 0.2512}
    assert labels([twin]) == ["a 25.1 %"]
    two = [twin | {"share": 0.2}, twin | {"share": 0.3}]
    assert labels(two) == ["a 25.1 % (own share 0.2)", "a 25.1 % (own share 0.3)"]
    assert flatten({"a": {"b": 1, "c": None}, "d": [1, 2], "e": True}) == {
        "a.b": 1,
        "a.c": "",
        "d": "1;2",
        "e": True,
    }
    assert value({"a": [1]}, "a.b") is None


def test_markdown_tables_are_whole():
    made = results(shares=(0.1,))
    text = markdown_tables(made)
    tables = [t for t in re.split(r"\n\n", text) if t.startswith("|")]
    assert len(tables) == 5  # speed, stages, tokens, encoded once, refused
    for table in tables:
        widths = {line.count("|") for line in table.strip().split("\n")}
        assert len(widths) == 1
    speed = tables[0].split("\n")
    assert len(speed) == len(made["rows"]) + 2
    line = next(x for x in speed if x.startswith("| fastv"))
    fastv = next(r for r in made["rows"] if r["method"] == "fastv")
    assert (
        f"| {fastv['seconds']['first_token']['median']:.3f} | {fastv['speedup']['first_token']:.2f} |" in line
    )
    assert "**both " in text
    bare = copy.deepcopy(made)
    for row in bare["rows"]:
        del row["tokens"], row["flops"], row["kv_bytes"], row["peak_bytes"], row["questions_per_second"]
    assert "Gflop" not in markdown_tables(bare)


def test_the_table_says_what_is_compared_at_what():
    made = results(shares=(0.25,))
    rows = {r["method"]: r for r in made["rows"]}
    rows["holitom"] |= {"side": "below", "share": 0.22, "among_best": True}
    rows["flashvid"] |= {"side": "above", "share": 0.3}
    for name in ("holitom", "none"):
        rows[name]["accuracy"] |= {"difference": -0.012, "difference_ci95": [-0.03, 0.006]}
    made["meta"] |= {
        "sample": "60 of 2,700 questions, 20 of 900 videos, drawn by seed 2",
        "clips": "MovingShapes, seed 2, on which no choice was made",
        "chosen_on": "settings were chosen on seed 1",
        "metric": "corrected",
        "notes": ["3 without an answer (missing)"],
    }
    text = markdown_tables(made)
    lines = text.split("\n")
    head = next(line for line in lines if line.startswith("| method")).split(" | ")
    cells = {
        name: dict(zip(head, next(x for x in lines if x.startswith(f"| {name}")).split(" | "), strict=True))
        for name in ("holitom", "flashvid", "unpruned", "fastv")
    }
    assert cells["holitom"]["wanted %"] == "25 (below)"
    assert cells["flashvid"]["wanted %"] == "25 (above)"
    assert cells["fastv"]["wanted %"] == "25"
    assert cells["holitom"]["minus unpruned (95 %)"] == "-1.2 (-3.0 to +0.6)"
    assert cells["unpruned"]["minus unpruned (95 %)"] == ""
    assert [cells[n]["among the best"] for n in ("holitom", "flashvid")] == ["yes", ""]
    assert cells["fastv"]["tokens kept %"] == f"{100 * rows['fastv']['retention']:.1f}"
    for told in (
        "Accuracy is `corrected`",
        "20 of 900 videos",
        "seed 2, on which no choice",
        "chosen on seed 1",
    ):
        assert told in text
    assert "Note: 3 without an answer (missing)." in text


def test_fronts_are_of_measured_rows_and_by_both_costs():
    made = results(shares=(0.5, 0.1))["rows"]
    group = groups(made)[0]
    found = fronts(group)
    for name, cost in (("time", first_token_seconds), ("operations", first_token_operations)):
        for row, on in zip(group.rows, found, strict=True):
            better = [
                r
                for r in group.rows
                if cost(r) <= cost(row)
                and r["accuracy"]["all"] >= row["accuracy"]["all"]
                and (cost(r), r["accuracy"]["all"]) != (cost(row), row["accuracy"]["all"])
            ]
            assert (name in on) == (not better)
    best = max(made, key=lambda r: r["accuracy"]["all"])
    del best["retention"]
    unmeasured = group.rows.index(best)
    assert found[unmeasured]
    assert fronts(group)[unmeasured] == ""


def test_scores_and_questions_encoded_once_have_tables_of_their_own(tmp_path):
    pytest.importorskip("matplotlib")
    made = results(shares=(0.25,), loads=(1, 8))
    for row in made["rows"]:
        figure = {
            "n": 60,
            "value": 50.0,
            "difference": None if row["method"] == "none" else [-2.0, -5.0, 1.0],
        }
        row["scores"] = {m: {"all": figure, "short": figure | {"n": 20}} for m in ("official", "corrected")}
        row["encode_once_ask_many"] = {
            "questions": 3,
            "seconds_per_question": 0.2,
            "decode_per_question": 0.05,
        }
    text = markdown_tables(made)
    assert text.count("official: short (20)") == 1  # once, not for each number of clips in a call
    assert "| 50.0; -2.0 (-5.0 to +1.0) |" in text
    assert "| 5.00 | 1.00 | 4.00 | 3 |" in text
    write_report(made, tmp_path)
    page = Page((tmp_path / "report.html").read_text())
    assert page.open == []
    assert page.words.count("official: short (20)") == 1
