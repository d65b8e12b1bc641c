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
        (["\ufeffunits", "", "5", "6", "7", "", " "], [5, 6, 7]),
        (["units\r\r", "5\r\r", "6\r\r", "7\r\r"], [5, 6, 7]),  # line ends that were translated twice
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
        (["02-13-2024", "02-14-2024", "02-15-2024"], ["02-16-2024"], 7),
        (["13-Feb-2024", "14-Feb-2024", "15-Feb-2024"], ["16-Feb-2024"], 7),
        (["2023M11", "2023M12", "2024M01"], ["2024M02"], 12),
        (
            ["2024-02-28T23:00:00.000+01:00", "2024-02-29T00:00:00.000+01:00", "2024-02-29T01:00:00.000+01:00"],
            ["2024-02-29T02:00:00.000+01:00"],
            24,
        ),
        (["2024-02-28 11:00 AM", "2024-02-28 12:00 PM", "2024-02-28 01:00 PM"], ["2024-02-28 02:00 PM"], 24),
        (["2023-12-30", "2024-01-30", "2024-02-29"], ["2024-03-30", "2024-04-30"], 12),
        (["2024-07-31", "2024-08-31", "2024-09-30"], ["2024-10-31", "2024-11-30"], 12),
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


@pytest.mark.parametrize("order", [np.arange(24)[::-1], np.random.default_rng(0).permutation(24)])
def test_years_in_another_order_are_sorted(tmp_path, order):
    series = read_series(write(tmp_path, "year,units", *(f"{2000 + k},{k * k}" for k in order)), "units")
    assert series.values.tolist() == [k * k for k in range(24)]
    assert (series.date, series.label(24)) == ("year", "2024")
    assert series.notes == ["the rows were put in the order of their dates"]


def test_months_as_fractions_of_two_digits_have_no_gaps(tmp_path):
    rows = [f"{2015 + k / 12:.2f},{k * k}" for k in range(60)]
    series = read_series(write(tmp_path, "time,units", *rows))
    assert (series.usual_season, series.notes, series.label(60), series.label(61)) == (12, [], "2020.00", "2020.08")
    assert series.values.tolist() == [k * k for k in range(60)]


def test_numbers_that_step_unevenly_are_no_dates(tmp_path):
    """Months as days since 1900 would drift, and so would sums."""
    starts = [datetime.date(2015 + k // 12, k % 12 + 1, 1).toordinal() - 693594 for k in range(20)]
    sums = np.cumsum([100 + k % 7 for k in range(20)])
    for column in (starts, sums):
        series = read_series(write(tmp_path, "n,units", *(f"{n},{k * k}" for k, n in enumerate(column))), "units")
        assert (series.date, series.label(20)) == (None, "21")
        assert series.notes == ["no column reads as dates: the rows are taken in the order of the file"]


def test_dates_come_before_a_counter(tmp_path):
    rows = [f"{k},{day},{k * k}" for k, day in enumerate(DAYS) if k != 7]
    series = read_series(write(tmp_path, ",day,units", *rows))  # as pandas writes its index
    assert (series.name, series.date, series.label(12)) == ("units", "day", "2024-01-13")
    assert series.notes == ["missing values were filled on a straight line between their neighbours: 1 (2024-01-08)"]


def test_a_day_that_a_month_does_not_have(tmp_path):
    months = [f"2023-{month:02d}-30" for month in (*range(3, 13),)] + ["2024-01-30", "2024-03-30"]
    series = read_series(write(tmp_path, "day,units", *(f"{day},{k}" for k, day in enumerate(months))))
    assert series.notes == ["missing values were filled on a straight line between their neighbours: 1 (2024-02-29)"]


def test_what_may_be_meant_in_another_way_is_said(tmp_path):
    series = read_series(write(tmp_path, "day;units", *(f"{day};{k + 1}.{250 + k}" for k, day in enumerate(DAYS))))
    assert (series.values[0], series.notes) == (
        1.25,
        ["'1.250' was read with '.' before its decimals, not between thousands"],
    )
    series = read_series(
        write(tmp_path, "day;units", *(f"{day};{-999 if k == 3 else k}" for k, day in enumerate(DAYS)))
    )
    assert (series.values[3], series.notes) == (-999, ["-999 was read as a number; a missing value is an empty cell"])


MONTHS = [f"{2015 + k // 12}-{k % 12 + 1:02d},{k}" for k in range(20)]


@pytest.mark.parametrize(
    ("lines", "wanted"),
    [
        (["month,units", *MONTHS, "Total,190"], r"column 'month': value 21 is 'Total', wanted a date as '2015-01' is"),
        (["month,units", *MONTHS, ",190"], r"column 'month': value 21 is '', wanted a date as '2015-01' is"),
        (
            ["month,units", *MONTHS[:9], "month,units", *MONTHS[9:]],
            r"column 'month': value 10 is 'month', wanted a date",
        ),
        (
            ["month,units", *MONTHS[:9], "2015-13,5", *MONTHS[9:]],
            r"column 'month': value 10 is '2015-13', wanted a date",
        ),
        (
            ["year,units", *(f"{2000 + k},{k}" for k in range(9)), "Sum,36"],
            r"'year': value 10 is 'Sum', wanted a date as",
        ),
        (["q,units", *(f"{2000 + k}Q1,{k}" for k in range(9)), "Sum,36"], r"'q': value 10 is 'Sum', wanted a date as"),
        (
            ["day,units", *(f"{k + 1}/1/20,{k}" for k in range(20))],
            r"value 1 is '1/1/20', wanted dates such as 2001-12-31",
        ),
        (["week,units", *(f"2020W{k + 10},{k}" for k in range(20))], r"value 1 is '2020W10', wanted dates such as"),
        (["m,units", *(f"Jan-{k + 10},{k}" for k in range(20))], r"value 1 is 'Jan-10', wanted dates such as"),
        (
            ["n,day,units", *(f"{k},d{2000 + k},{k}" for k in range(20))],
            r"'day': value 1 is 'd2000', wanted dates such as",
        ),
        (
            ["year,units", *(f"{2000 + k}/{k + 1:02d},{k}" for k in range(12))],
            r"value 1 is '2000/01', wanted dates such as",
        ),
        (
            ["day,units", *(f"2024{13 if k == 4 else 1:02d}{k + 10},{k}" for k in range(13))],
            r"value 5 is '20241314', wanted",
        ),
    ],
)
def test_a_column_of_dates_with_one_that_is_none(tmp_path, lines, wanted):
    """Without its dates, a series would be in the order of the file, with the total at its end."""
    with pytest.raises(ValueError, match=wanted):
        read_series(write(tmp_path, *lines), "units")


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
        (["n;units", "1;1.234", "2;12,345", "3;3"], {}, r"holds '1.234' and '12,345', wanted one spelling"),
        (["n\tunits", "1\t1.234", "2\t999", "3\t2.345"], {}, r"'1.234' may be thousands or decimals"),
        (["units", "5", "6", "", "7"], {}, r"row 4 is empty and no column has dates, wanted NA for a missing value"),
        (["a,b", "1,x", ",", "2,y"], {"column": "a"}, r"row 3 is empty and no column has dates"),
        (
            ["a,b", "1,x", '2,"y', "3,z", "4,z"],
            {"column": "a"},
            r"unexpected end of data, wanted .* quotes come in pairs",
        ),
        (["a,b", '1,"x', *["2,y"] * 60000], {}, r"field larger than .* quotes come in pairs"),
        (["units", "1", "2e200", "3"], {}, r"value 2 is '2e200', wanted a number"),
        (["u\0n\0", "1\0", "2\0"], {}, r"is not UTF-8 text"),
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


# --- what people hand over ------------------------------------------------------------------------------------


def test_the_columns_of_pandas_without_names_are_no_values(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(",0,1\n" + "\n".join(f"{k},{k * k % 7},{50 + k % 5}" for k in range(30)))
    assert read_series(str(path), column="1").values.tolist() == [50 + k % 5 for k in range(30)]


def test_a_first_row_that_is_taken_as_a_value_is_said(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("0\n" + "\n".join(str(50 + k % 5) for k in range(30)))
    series = read_series(str(path))
    assert len(series.values) == 31
    assert "no line of names was found: the first row is taken as values" in series.notes
    path.write_text("units\n" + "\n".join(str(50 + k % 5) for k in range(30)))
    assert read_series(str(path)).notes == []


def test_commas_in_quotes_are_said_to_group_thousands(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("month,rate\n" + "\n".join(f'{2015 + k // 12}-{k % 12 + 1:02d},"1,{500 + k}"' for k in range(30)))
    series = read_series(str(path), column="rate")
    assert series.values[0] == 1500
    assert "'1,500' was read with ',' between thousands, not before its decimals" in series.notes


@pytest.mark.parametrize("code", ["-999", "-99.99", "-999.25", "9999", "9999.0", "9.96921e+36", "9.96921E36"])
def test_a_code_for_a_missing_value_is_said_to_be_read_as_a_number(tmp_path, code):
    path = tmp_path / "a.csv"
    path.write_text("units\n" + "\n".join([*(f"{50 + k % 5}.5" for k in range(30)), code]))
    notes = read_series(str(path)).notes
    assert notes == [f"{code} was read as a number; a missing value is an empty cell"]
