"""A series from a CSV file: what is read, what is mended, and what is refused by name."""

import datetime
import io
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))
from experiments.series import read_series

DAYS = [datetime.date(2024, 1, 1) + datetime.timedelta(k) for k in range(12)]


def write(tmp_path, *lines):
    path = tmp_path / "data.csv"
    path.write_text("\n".join(lines), encoding="utf-8")
    return str(path)


def labels(series, *rows):
    return [series.label(row) for row in rows]


@pytest.mark.parametrize(
    ("lines", "values"),
    [
        (["1", "2.5", "-3e2", "4"], [1, 2.5, -300, 4]),
        (["units", "1", "2", "4"], [1, 2, 4]),
        (["units", "1,5", "2,25", "4"], [1.5, 2.25, 4]),
        (["n;units", "1;1,5", "2;2,25", "3;4,0"], [1.5, 2.25, 4]),
        (["n;units", "1;1.000,5", "2;999,25", "3;12.345,0"], [1000.5, 999.25, 12345]),
        (["n\tunits", "1\t1,234.5", "2\t999", "3\t1,000,000"], [1234.5, 999, 1e6]),
        (["n,units", '1,"1,234"', '2,"999"', '3,"2,345"'], [1234, 999, 2345]),
        (["n|units", "1|0.123", "2|0.5", "3|2.345"], [0.123, 0.5, 2.345]),
        (["n;units", "1;1,250", "2;2,500", "3;0,125"], [1.25, 2.5, 0.125]),
        (["n, units,", "1, 5,", "2, 6,", "3, 7,"], [5, 6, 7]),
        (["\ufeffunits", "5", "6", "", "7"], [5, 6, 7]),
        (["name,units", "a,5", "b,6", "c,7"], [5, 6, 7]),
    ],
)
def test_numbers_in_every_spelling(tmp_path, lines, values):
    assert read_series(write(tmp_path, *lines)).values.tolist() == values


@pytest.mark.parametrize(
    ("dates", "later", "season"),
    [
        (["2023-11", "2023-12", "2024-01"], ["2024-02", "2024-03"], 12),
        (["2023-11-01", "2023-12-01", "2024-01-01"], ["2024-02-01", "2024-03-01"], 12),
        (["30.11.2023", "31.12.2023", "31.01.2024"], ["29.02.2024", "31.03.2024"], 12),
        (["2023-06-30", "2023-09-30", "2023-12-31"], ["2024-03-31", "2024-06-30"], 4),
        (["2023-Q3", "2023-Q4", "2024-Q1"], ["2024-Q2", "2024-Q3"], 4),
        (["2021", "2022", "2023"], ["2024", "2025"], 1),
        (["2021-07-15", "2022-07-15", "2023-07-15"], ["2024-07-15", "2025-07-15"], 1),
        (["Nov 2023", "Dec 2023", "Jan 2024"], ["Feb 2024", "Mar 2024"], 12),
        (["1950.000", "1950.083", "1950.167"], ["1950.250", "1950.333"], 12),
        (["2024-02-27", "2024-02-28", "2024-02-29"], ["2024-03-01", "2024-03-02"], 7),
        (["20240215", "20240222", "20240229"], ["20240307", "20240314"], 52),
        (["2024-02-28 22:00", "2024-02-28 23:00", "2024-02-29 00:00"], ["2024-02-29 01:00", "2024-02-29 02:00"], 24),
        (["2024-02-29T23:30:00", "2024-02-29T23:45:00", "2024-03-01T00:00:00"], ["2024-03-01T00:15:00"], 96),
        (["13/02/2024", "14/02/2024", "15/02/2024"], ["16/02/2024"], 7),
    ],
)
def test_dates_go_on(tmp_path, dates, later, season):
    series = read_series(write(tmp_path, "when,units", *(f"{date},{k * k}" for k, date in enumerate(dates))))
    assert (series.date, series.usual_season, series.notes) == ("when", season, [])
    assert labels(series, 0, 1, 2) == dates
    assert labels(series, *range(3, 3 + len(later))) == later


def test_working_days_have_no_weekend(tmp_path):
    rows = [f"{day},{k}" for k, day in enumerate(DAYS) if day.weekday() < 5]
    series = read_series(write(tmp_path, "day,price", *rows))
    assert (series.usual_season, len(series.values), series.notes) == (5, 10, [])
    assert labels(series, 9, 10, 15) == ["2024-01-12", "2024-01-15", "2024-01-22"]


def test_gaps_are_filled_and_reported(tmp_path):
    rows = [f"{day},{2 * k}" for k, day in enumerate(DAYS)]
    rows[0], rows[3], rows[11] = "2024-01-01,", "2024-01-04,NA", "2024-01-12,null"
    del rows[5]
    series = read_series(write(tmp_path, "day,units", *rows))
    assert series.values.tolist() == [2, 4, 6, 8, 10, 12, 14, 16, 18, 20]
    assert labels(series, 0, 10) == ["2024-01-02", "2024-01-12"]
    assert series.notes == [
        "rows without a value at the ends were left out: 2",
        "missing values were filled on a straight line between their neighbours: 2 (2024-01-04, 2024-01-06)",
    ]


def test_rows_in_another_order_are_sorted(tmp_path):
    rows = [f"{day},{k}" for k, day in enumerate(DAYS)]
    series = read_series(write(tmp_path, "day,units", *rows[::-1]))
    assert series.values.tolist() == list(range(12))
    assert series.notes == ["the rows were put in the order of their dates"]


def test_a_column_is_taken_by_name_and_rows_without_dates_are_counted(tmp_path):
    path = write(tmp_path, "a,b,text", *(f"{7 * k % 5},{k * k},x{k}" for k in range(8)))
    assert read_series(path, "b").values.tolist() == [k * k for k in range(8)]
    assert (read_series(path, "a").date, read_series(path, "a").label(8)) == (None, "9")


def test_the_standard_input(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"units\n1\n2\n4\n")))
    assert read_series("-").values.tolist() == [1, 2, 4]


@pytest.mark.parametrize(
    ("lines", "options", "wanted"),
    [
        ([], {}, r"has 0 rows, wanted a CSV file"),
        (["a,b", "1,2", "3,4,5", "6,7"], {}, r"row 3 has 3 cells, the first row 2 \(separator ','\): '3,4,5'"),
        (["a,b,c", "5,2,1", "2,1,9", "8,1,7"], {}, r"--column is missing, wanted one of a, b, c"),
        (["when,sales", "2020,2", "2021,1", "2022,4"], {"column": "sale"}, r"'sale' is none of .* mean 'sales'\?"),
        (["a,a", "5,2", "2,1", "8,1"], {"column": "a"}, r"--column 'a' is a column twice in a, a"),
        (["when,units", "2020,2", "2021,many", "2022,4"], {"column": "units"}, r"'units': value 2 is 'many', wanted a"),
        (["when,units", "2020,2", "2021,1 500", "2022,4"], {"column": "units"}, r"value 2 is '1 500', wanted a number"),
        (["units", "1", "inf", "2", "3"], {"column": "units"}, r"value 2 is 'inf', wanted a number"),
        (["n;units", "1;1,234", "2;999", "3;2,345"], {}, r"'1,234' may be thousands or decimals"),
        (["n;units", "1;1.234", "2;999", "3;2.345"], {}, r"'1.234' may be thousands or decimals"),
        (["n;units", "1;1.5", "2;2,5", "3;3"], {}, r"holds '1.5' and '2,5', wanted one spelling"),
        (["9,5", "7,25", "8,5"], {}, r"'9,5' may be one number or two"),
        (["when,u", "01/02/2020,1", "01/03/2020,5", "01/04/2020,4"], {}, r"may be %d/%m/%Y or %m/%d/%Y"),
        (["when,u", "2020-01-01,1", "2020-01-01,5", "2020-01-02,4"], {}, r"date 2020-01-01 comes twice"),
        (["when,u", "2020-01-01,1", "2020-01-02,5", "2020-01-09,4"], {}, r"3 dates from 2020-01-01 to 2020-01-09"),
        (["when,u", "soon,1", "later,5", "then,many"], {}, r"--column is missing, wanted one of when, u"),
        (["when,u", "soon,1", "later,5", "then,4"], {"date": "when"}, r"--date 'when' holds soon, later, then; wanted"),
        (["when,u", "2020,1", "2021,5", "2022,4"], {"date": "u", "column": "u"}, r"wanted a column of dates beside"),
        (["when,u", "2020,1", "2021,", "2022,", "2023,1"], {}, r"'u' has 2 numbers in 4 rows, wanted four in five"),
        (["when,u", "2020,", "2021,", "2022,"], {"column": "u"}, r"'u' has 0 numbers in 3 rows"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(tmp_path, lines, options, wanted):
    path = write(tmp_path, *lines)
    with pytest.raises(ValueError, match=wanted) as caught:
        read_series(path, **options)
    assert str(caught.value).startswith(path)


def test_files_that_are_none(tmp_path):
    with pytest.raises(ValueError, match=r"nothing\.csv: No such file or directory"):
        read_series(str(tmp_path / "nothing.csv"))
    (tmp_path / "model.png").write_bytes(b"\x89PNG\r\n\x1a\n\xff\xfe" * 9)
    with pytest.raises(ValueError, match=r"model\.png: is not UTF-8 text, wanted a CSV file"):
        read_series(str(tmp_path / "model.png"))


def test_values_are_float64(tmp_path):
    assert read_series(write(tmp_path, "1", "2", "3")).values.dtype == np.float64
