"""A series from a CSV file: separators, decimal commas, dates, gaps. What is not understood is refused by name."""

from __future__ import annotations

import csv
import difflib
import itertools
import re
import sys
from calendar import monthrange
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

MOST_MISSING = 0.2  # of the rows
DAYS = (
    "%Y-%m-%d", "%Y/%m/%d", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y", "%Y%m%d", "%d-%b-%Y",
    "%d %b %Y", "%b %d, %Y",
)  # fmt: skip
TIMES = ("", " %H:%M", " %H:%M:%S", "T%H:%M", "T%H:%M:%S", " %I:%M %p")
MONTHS = ("%Y-%m", "%Y/%m", "%m/%Y", "%Y%m", "%b %Y", "%Y %b", "%B %Y", "%Y %B", "%b-%Y", "%YM%m")
FORMATS = (*(day + time for day, time in itertools.product(DAYS, TIMES)), *MONTHS)
MISSING = re.compile(r"|n/?a|#n/a|nan|null|none|[-.?]", re.IGNORECASE)
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
# -999, -99.99, 9999 and 9.96921e+36, as some files have them for a missing value.
NINES = re.compile(r"-9{2,}([.,]\d*)?|9{4,}([.,][09]*)?|9[.,]969\d*[eE]\+?36")
LARGEST = 1e150  # whose square is still a number
LIKE_A_NUMBER = re.compile(r"[-+]?[\d.,]*\d[\d.,]*([eE][-+]?\d+)?")
ZONE = re.compile(r"(?<=:\d\d)(\.0+)?(Z| ?UTC|[-+]\d\d(:?\d\d)?)?$")  # after a time; one for all rows is kept
LIKE_A_DATE = re.compile(
    r"(?<!\d)(1[5-9]|2[01])\d\d((0\d|1[0-2])(\d\d)?)?(?!\d)|\d+(?P<mark>[-/.:])\d+(?P=mark)\d"
    r"|\b(jan|feb|m[aä]r|apr|ma[iy]|jun|jul|aug|sep|o[ck]t|nov|de[cz])[a-zäé]{0,6}\.?[ '-]*\d", re.IGNORECASE,
)  # fmt: skip
QUARTER = re.compile(r"(\d{4})([- ]?[Qq])([1-4])")
DAY = 86400  # seconds


class Calendar(NamedTuple):
    """How rows step: their places (whole numbers), the label of a place, and the usual season (of months: 12)."""

    places: np.ndarray
    label: Callable[[int], str]
    season: int


class Series(NamedTuple):
    """A series without gaps: its numbers [time], the label of a row, also of later rows, and what was mended."""

    name: str
    values: np.ndarray
    label: Callable[[int], str]
    date: str | None  # the name of the column of dates; None if rows are only counted
    usual_season: int
    notes: list[str]


def read_series(path: str, column: str | None = None, date: str | None = None) -> Series:
    """Read one column of a CSV file; ``-`` is the standard input.

    Raises ValueError, which begins with the path, for what is not an evenly spaced series of numbers.
    """
    where = "standard input" if path == "-" else path
    header, rows, separator, blank = read_table(path, where)
    named = [f"{where}: column {name!r}" for name in header]
    columns = list(zip(*rows, strict=True))
    known = [k for k, cells in enumerate(columns) if not all(map(MISSING.fullmatch, cells))]
    able = [k for k in known if all(MISSING.fullmatch(c) or LIKE_A_NUMBER.fullmatch(c) for c in columns[k])]
    chosen = able[0] if column is None and len(able) == 1 else find(header, column, "--column", where)
    dated = find(header, date, "--date", where)
    if dated is None and len(known) > 1:
        dated = find_dates({k: columns[k] for k in known if k != chosen}, named)
    if chosen is None:
        left = [k for k in able or known if k != dated]
        left = [k for k in left if len(left) == 1 or not calendar(columns[k], named[k])] or left
        if len(left) != 1:
            raise ValueError(f"{where}: --column is missing, wanted one of {', '.join(header[k] for k in left)}")
        chosen = left[0]
    values, notes = numbers(columns[chosen], separator, named[chosen])
    if header == [str(k) for k in range(1, len(header) + 1)]:
        notes.append("no line of names was found: the first row is taken as values")
    if dated is None:
        if blank:
            raise ValueError(f"{where}: row {blank} is empty and no column has dates, wanted NA for a missing value")
        if len(known) > 1:
            notes.append("no column reads as dates: the rows are taken in the order of the file")
        counted = Calendar(np.arange(len(values)), lambda place: str(place + 1), 1)
        return complete(header[chosen], values, counted, None, where, notes)
    found = calendar(columns[dated], named[dated])
    if found is None and chosen != dated:
        refuse_odd_dates(columns[dated], named[dated])
    if found is None or chosen == dated:
        some = ", ".join(columns[dated][:3])
        raise ValueError(f"{where}: --date {header[dated]!r} holds {some}; wanted a column of dates beside the numbers")
    return complete(header[chosen], values, found, header[dated], where, notes)


def read_table(path: str, where: str) -> tuple[list[str], list[list[str]], str, int]:
    """Return the columns' names (1, 2, ... without a header), the rows, the separator, and the first empty row or 0."""
    try:
        text = (sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{where}: is not UTF-8 text, wanted a CSV file") from None
    except OSError as error:
        raise ValueError(f"{where}: {error.strerror}") from None
    every = text.replace("\r\r\n", "\n").splitlines()
    full = [k for k, line in enumerate(every) if line.strip(" \t;,|")]
    lines = [every[k] for k in full]
    if len(lines) < 3 or "\0" in text:
        what = "is not UTF-8 text" if "\0" in text else f"has {len(lines)} rows"
        raise ValueError(f"{where}: {what}, wanted a CSV file with a row for each time step")
    try:
        found = {mark: csv.reader(lines, delimiter=mark) for mark in ";\t|,"}
        tables = {mark: [[cell.strip() for cell in row] for row in rows] for mark, rows in found.items()}
        even = [mark for mark, rows in tables.items() if {len(row) for row in rows} == {len(rows[0])} != {1}]
        single = [mark for mark, rows in tables.items() if max(map(len, rows)) == 1 and len(tables[","][0]) == 1]  # 1,5
        separator = (even or single or sorted(tables, key=lambda mark: -len(tables[mark][0])))[0]
        rows = tables[separator]
        for _ in csv.reader(lines, delimiter=separator, strict=True):
            pass  # a quote that is never closed would take all further rows into its cell
    except csv.Error as error:
        raise ValueError(f"{where}: {error}, wanted a CSV file whose quotes come in pairs") from None
    for number, row in enumerate(rows):
        if len(row) != len(rows[0]):
            what = f"row {full[number] + 1} has {len(row)} cells, the first row {len(rows[0])}"
            raise ValueError(f"{where}: {what} (separator {separator!r}): {lines[number]!r}")
    blanks = [before + 2 for before, after in itertools.pairwise(full) if after > before + 1]  # rows count from 1
    is_of_pandas = len(rows[0]) > 1 and rows[0] == ["", *map(str, range(len(rows[0]) - 1))]  # columns without names
    plain = all(MISSING.fullmatch(c) or LIKE_A_NUMBER.fullmatch(c) or calendar([c], where) for c in rows[0])
    if is_of_pandas or not plain:
        blank = next((row for row in blanks if row > full[1]), 0)  # an empty row below the header is none of the series
        return [cell or f"column {k}" for k, cell in enumerate(rows[0], 1)], rows[1:], separator, blank
    if separator == "," and len(rows[0]) == 2 and not calendar([row[0] for row in rows], where):
        raise ValueError(f"{where}: {lines[0]!r} may be one number or two, wanted a header line above")
    return [str(k) for k in range(1, len(rows[0]) + 1)], rows, separator, next(iter(blanks), 0)


def find_dates(columns: dict[int, Sequence[str]], named: Sequence[str]) -> int | None:
    """Return the place of the first column of dates, else of the first that counts the rows, such as 1, 2, 3, ...

    Raises ValueError for a column of dates with one that cannot be read: rows without their dates may be in any order.
    """
    found = [k for k, cells in columns.items() if calendar(cells, named[k])]
    dated = [k for k in found if all(map(LIKE_A_DATE.search, columns[k]))]
    for k in columns.keys() - found if not dated else ():
        refuse_odd_dates(columns[k], named[k])
    return next(iter(dated or found), None)


def refuse_odd_dates(cells: Sequence[str], where: str) -> None:
    """Raise ValueError for cells that cannot be read as dates although most look like some, or count the rows."""
    counts = [cell for cell in cells if NUMBER.fullmatch(cell)]
    like = {cell for cell in cells if LIKE_A_DATE.search(cell)}
    if len(counts) == len(cells) and {len(cell) for cell in cells} != {8}:  # 20011231
        return
    if 4 < len(counts) > len(cells) / 2 and calendar(counts, where):
        spellings = [[cell in counts for cell in cells]]
    elif len(like) > len(cells) / 2:
        spellings = [[read_date(cell, text) is not None for cell in cells] for text in FORMATS]
        spellings.append([bool(QUARTER.fullmatch(cell)) for cell in cells])
    else:
        return
    best = max(spellings, key=sum)
    some = any(best) and not all(best)
    odd = best.index(False) if some else 0
    wanted = f"a date as {cells[best.index(True)]!r} is" if some else "dates such as 2001-12-31"
    raise ValueError(f"{where}: value {odd + 1} is {cells[odd]!r}, wanted {wanted}, or not this column")


def read_date(cell: str, text: str) -> datetime | None:
    """Return the date in a cell that has the format `text`."""
    try:
        return datetime.strptime(cell, text)
    except ValueError:
        return None


def find(header: Sequence[str], name: str | None, flag: str, where: str) -> int | None:
    """Return the place of the column with this name."""
    if name is None or header.count(name) == 1:
        return None if name is None else header.index(name)
    near = difflib.get_close_matches(name, header, 1, 0.4)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    what = "is a column twice in" if name in header else "is none of the columns"
    raise ValueError(f"{where}: {flag} {name!r} {what} {', '.join(header)}{hint}")


def numbers(cells: Sequence[str], separator: str, where: str) -> tuple[np.ndarray, list[str]]:
    """Return cells as float64, NaN where missing, and notes on what may have been meant in another way."""
    known = [cell for cell in cells if not MISSING.fullmatch(cell)]
    decimal = decimal_mark(known, separator, where)
    values, notes = np.full(len(cells), np.nan), []
    for row, cell in enumerate(cells):
        if not MISSING.fullmatch(cell):
            plain = cell.replace("," if decimal == "." else ".", "").replace(",", ".")
            if not NUMBER.fullmatch(plain) or not abs(float(plain)) < LARGEST:
                raise ValueError(f"{where}: value {row + 1} is {cell!r}, wanted a number")
            values[row] = float(plain)
    thousand = re.compile(rf"[-+]?[1-9]\d{{0,2}}\{decimal}\d{{3}}")
    groups = next((cell for cell in known if "," in cell), None) if separator == "," and decimal == "." else None
    if groups is not None:
        notes.append(f"{groups!r} was read with ',' between thousands, not before its decimals")
    if separator != "," and known and all(map(thousand.fullmatch, known)):
        notes.append(f"{known[0]!r} was read with {decimal!r} before its decimals, not between thousands")
    nines = next(filter(NINES.fullmatch, known), None)
    return values, notes + [f"{nines} was read as a number; a missing value is an empty cell"] * bool(nines)


def decimal_mark(cells: Sequence[str], separator: str, where: str) -> str:
    """Return what separates decimals, ``.`` or ``,``; the other mark may group thousands. One spelling must hold."""
    marked = {mark: [cell for cell in cells if mark in cell] for mark in ".,"}
    grouped = {}  # whether all numbers with a mark may be groups of three digits, such as 1,234,567.8
    for mark, other in (".,", ",."):
        pattern = rf"[-+]?[1-9]\d{{0,2}}(\{mark}\d{{3}})+(\{other}\d*)?"
        grouped[mark] = bool(marked[mark]) and all(re.fullmatch(pattern, cell) for cell in marked[mark])
    for mark, other in (".,", ",.") if not all(grouped.values()) else ():  # 1.234 and 12,345: either may be the groups
        if grouped[mark] and (marked[other] or any(cell.count(mark) > 1 for cell in marked[mark])):
            return other
    if marked["."] and marked[","]:
        raise ValueError(f"{where} holds {marked['.'][0]!r} and {marked[','][0]!r}, wanted one spelling of numbers")
    decimal = "," if marked[","] else "."
    if grouped[decimal] and decimal == separator:  # "1,234" in quotes, as people write who separate columns by commas
        return "."
    if grouped[decimal] and len(marked[decimal]) < len(cells):
        raise ValueError(f"{where}: {marked[decimal][0]!r} may be thousands or decimals, wanted no such mark")
    return decimal


def calendar(cells: Sequence[str], where: str) -> Calendar | None:
    """How dates, quarters such as 2001-Q3, or numbers with one step go on; None for anything else.

    Raises ValueError for dates that can be read in two ways.
    """
    quarters = [match.groups() for cell in cells if (match := QUARTER.fullmatch(cell))]
    if len(quarters) == len(cells):
        places = np.array([int(year) * 4 + int(k) - 1 for year, _, k in quarters])
        return Calendar(places, lambda place: f"{place // 4}{quarters[0][1]}{place % 4 + 1}", 4)
    zone = match[0] if (match := ZONE.search(cells[0])) else ""
    if zone and all(cell.endswith(zone) for cell in cells):
        local = calendar([cell[: -len(zone)] for cell in cells], where)
        return local and local._replace(label=lambda place: local.label(place) + zone)
    found = {}
    for text in FORMATS:
        if text not in ("%Y%m%d", "%Y%m") or {len(cell) for cell in cells} == {8 if "d" in text else 6}:
            read = itertools.takewhile(bool, (read_date(cell, text) for cell in cells))
            dates = [date for date in read if date]
            if len(dates) == len(cells) and (one := stepping(dates, text)):
                found[text] = one
    if len({(one.season, *one.places) for one in found.values()}) > 1 and len(cells) > 1:
        raise ValueError(f"{where}: {cells[0]!r} may be {' or '.join(found)}, wanted dates such as 2001-12-31")
    if found or len(cells) < 2 or not all(map(NUMBER.fullmatch, cells)):
        return next(iter(found.values()), None)
    times = np.array([float(cell) for cell in cells])  # years, or months as R writes them: 1949.083
    ordered = np.sort(times) if np.diff(times).max() < 0 or all(map(LIKE_A_DATE.search, cells)) else times
    step = float(np.median(np.diff(ordered)))
    if step <= 0 or np.diff(ordered).min() < 0.8 * step or np.ptp(times) > len(times) * step / (1 - MOST_MISSING):
        return None
    digits = max(len(cell.partition(".")[2]) for cell in cells)
    near = round(1 / step)
    parts = {1 / n: n for n in range(max(near - 1, 2), near + 2) if digits and 0.8 < 1 / n / step < 1.25}
    off = {one: np.abs(np.rint((times - ordered[0]) / one) * one + ordered[0] - times).max() for one in (*parts, step)}
    best = min(off, key=lambda one: (off[one], one != step))
    rounded = max(1.01 * 10.0**-digits, 0.1 * best) if best in parts else 1e-9 * np.abs(times).max()
    if off[best] > rounded:
        return None  # such as months in days, or sums
    label = partial(number_label, ordered[0], best, digits)
    return Calendar(np.rint((times - ordered[0]) / best).astype(int), label, parts.get(best, 1))


def number_label(first: float, step: float, digits: int, place: int) -> str:
    """Return the number at a place, with its digits."""
    return f"{first + place * step:.{digits}f}"


def stepping(dates: Sequence[datetime], text: str) -> Calendar | None:
    """Months (also quarters and years), working days, or steps of a constant time; None for years such as 2001/02."""
    first, same_time = dates[0], len({date.time() for date in dates}) == 1
    last = [monthrange(date.year, date.month)[1] for date in dates]
    day = 31 if all(date.day == end for date, end in zip(dates, last, strict=True)) else max(date.day for date in dates)
    months = np.array([date.year * 12 + date.month - 1 for date in dates])
    regular = all(date.day == min(day, end) for date, end in zip(dates, last, strict=True))
    if regular and same_time and np.ptp(months) > 0:
        step = int(np.gcd.reduce(np.diff(months)))
        if 12 % step and step % 12:
            return None

        def month(place: int) -> str:
            year, k = divmod(place * step + int(months[0]), 12)
            return first.replace(year=year, month=k + 1, day=min(day, monthrange(year, k + 1)[1])).strftime(text)

        return Calendar((months - months[0]) // step, month, 12 // step if 12 % step == 0 else 1)
    stamps = np.array(dates, "datetime64[s]")
    days = stamps.astype("datetime64[D]")
    working = np.busday_count(days[0], days)
    if same_time and 5 < len(days) > (1 - MOST_MISSING) * (np.ptp(working) + 1) and np.is_busday(days).all():

        def weekday(place: int) -> str:
            return (first + (np.busday_offset(days[0], place) - days[0]).item()).strftime(text)

        return Calendar(working, weekday, 5)
    step = int(np.gcd.reduce(np.diff(stamps).astype(int))) if len(dates) > 1 else DAY
    step = step or DAY
    season = {DAY: 7, 7 * DAY: 52}.get(step, max(DAY // step, 1))
    places = (stamps - stamps[0]).astype(int) // step
    return Calendar(places, lambda place: (first + timedelta(seconds=place * step)).strftime(text), season)


def complete(
    name: str, values: np.ndarray, rows: Calendar, date: str | None, where: str, notes: list[str]
) -> Series:  # fmt: skip
    """Put the rows in the order of their dates and fill gaps; further notes say what was done."""
    order = np.argsort(rows.places, kind="stable")
    places, values = rows.places[order], values[order]
    notes = notes + ["the rows were put in the order of their dates"] * bool((np.diff(order) < 0).any())
    start, length = int(places[0]), int(places[-1] - places[0]) + 1
    twice = np.flatnonzero(np.diff(places) == 0)
    if len(twice):
        raise ValueError(f"{where}: date {rows.label(int(places[twice[0]]))} comes twice, wanted one row for each")
    if len(places) < (1 - MOST_MISSING) * length:
        span = f"{rows.label(start)} to {rows.label(start + length - 1)}"
        raise ValueError(f"{where}: {len(places)} dates from {span}, wanted evenly spaced ones: {length}")
    grid = np.full(length, np.nan)
    grid[places - start] = values
    known = np.flatnonzero(np.isfinite(grid))
    if len(known) < (1 - MOST_MISSING) * (known[-1] + 1 - known[0] if len(known) else 1):
        raise ValueError(f"{where}: column {name!r} has {len(known)} numbers in {length} rows, wanted four in five")
    start, filled = start + int(known[0]), np.arange(known[0], known[-1] + 1)
    if len(filled) < length:
        notes.append(f"rows without a value at the ends were left out: {length - len(filled)}")
    holes = np.setdiff1d(filled, known)
    if len(holes):
        which = ", ".join(rows.label(int(places[0] + hole)) for hole in holes[:3]) + ", ..." * (len(holes) > 3)
        notes.append(f"missing values were filled on a straight line between their neighbours: {len(holes)} ({which})")
    grid = np.interp(filled, known, grid[known])
    return Series(name, grid, lambda row: rows.label(start + row), date, rows.season, notes)


def find_season(values: np.ndarray, usual: int, longest: int) -> int:
    """Return the season of a series, or 1: a lag at which its differences repeat, and again at two and three times it.

    The least of the three autocorrelations must be 0.5, but 0.2 is enough for the `usual` season of the calendar.
    """
    changes = np.diff(values) - np.mean(np.diff(values))
    spread = float(np.mean(changes**2)) or 1.0
    least = [1.0]
    for lag in range(1, longest + 1):
        multiples = [k * lag for k in (1, 2, 3) if k * lag < len(changes) - 3]
        least.append(min(np.mean(changes[k:] * changes[:-k]) / spread for k in multiples))
    if 1 < usual <= longest and least[usual] > 0.2:
        return usual
    longest = min(longest, len(changes) // 4)  # three multiples, each seen at least once more
    peaks = [k for k in range(2, longest) if least[k] >= max(0.5, least[k - 1], least[k + 1])]
    most = max((least[k] for k in peaks), default=1.0)
    return next((k for k in peaks if 1 - least[k] <= 1.3 * (1 - most) + 0.01), 1)  # not twice the season
