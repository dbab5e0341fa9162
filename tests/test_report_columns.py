"""What a report tells of tabular columns: kind, range or categories; and nothing where there are none."""

from __future__ import annotations

from exporters.columns import BUCKET, CATEGORY, NUMBER, Column
from exporters.report_columns import column_told, columns_told
from exporters.report_html import to_html
from exporters.report_markdown import to_markdown
from tests.sample_reports import whole_report

COLUMNS = (
    Column("age", NUMBER, default=40.0, mean=40.0, standard_deviation=12.5),
    Column("weight", BUCKET, default=7.0, boundaries=(2.5, 10.0)),
    Column("skin", CATEGORY, categories=("dark", "<b>fair</b>", *(f"c{number}" for number in range(30)))),
)


def test_words() -> None:
    assert column_told(COLUMNS[0].to_json()).startswith("a number: 40 on average, with a deviation of 12.5 in training")
    assert "below 2.5, 2.5 to below 10, 10 or more" in column_told(COLUMNS[1].to_json())
    told = column_told(COLUMNS[2].to_json())
    assert told.startswith("a category: dark, <b>fair</b>, c0")
    assert told.endswith("and 12 more; anything else is unknown")


def test_reports_tell_them_and_escape_them() -> None:
    told = whole_report()
    plain_markdown, plain_html = to_markdown(told), to_html(told)
    assert "Columns beside" not in plain_markdown
    told["card"] = {**told.get("card", {}), "columns": [column.to_json() for column in COLUMNS]}
    markdown, html = to_markdown(told), to_html(told)
    assert "### Columns beside the picture" in markdown
    assert "&lt;b&gt;fair" in markdown
    assert "column skin" in html
    assert "&lt;b&gt;fair" in html
    assert "<b>fair" not in html
    assert "column skin" not in plain_html


def test_a_damaged_card_is_no_reason_to_fail() -> None:
    assert columns_told({"card": {"columns": [{"name": "x"}, 3, COLUMNS[0].to_json()]}}) == [
        ("age", column_told(COLUMNS[0].to_json()))
    ]
    assert columns_told({}) == columns_told({"card": None}) == []
