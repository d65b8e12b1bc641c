"""Every page of the site, as a reader's browser shows it on a screen and on a phone."""

import html.parser
import re
import subprocess
import sys
import urllib.parse
import zlib
from pathlib import Path

import pytest
from conftest import WIDTHS

DOCS = Path(__file__).parents[2] / "docs"

# Checks of a page that has loaded. Each returns a list of what is wrong.
IMAGES = """async () => {
    const images = [...document.querySelectorAll('article img')];
    for (const image of images) { image.loading = 'eager'; await image.decode().catch(() => null); }
    return images.filter(i => !i.naturalWidth || !i.alt.trim()).map(i => `${i.src}: alt=${i.alt}`);
}"""
DRAWINGS = """() => [...document.querySelectorAll('article svg.drawing, article svg[role=img]')]
    .filter(s => !s.closest('mjx-container'))
    .filter(s => !(s.getAttribute('aria-label') || s.getAttribute('aria-labelledby') || s.querySelector('title')))
    .map(s => s.outerHTML.slice(0, 80))"""
FORMULAS = """() => [...document.querySelectorAll('article .math')]
    .filter(m => !m.querySelector('mjx-container svg') || m.querySelector('[data-mjx-error], mjx-merror'))
    .map(m => m.textContent.slice(0, 80))"""
RAW_TABLES = """() => [...document.querySelectorAll('article p')].map(p => p.textContent)
    .filter(text => /^\\|.*\\|\\s*$/s.test(text)).map(text => text.slice(0, 80))"""
TOO_WIDE = """() => document.documentElement.scrollWidth <= window.innerWidth ? [] :
    [...document.querySelectorAll('article *')]
        .filter(e => e.getBoundingClientRect().right > window.innerWidth + 1)
        .slice(0, 3).map(e => e.outerHTML.slice(0, 120))
        .concat([`${document.documentElement.scrollWidth} > ${window.innerWidth}`])"""

CUT_OFF = """() => [...document.querySelectorAll('article div.highlight pre')]
    .filter(pre => getComputedStyle(pre).whiteSpace === 'pre')
    .map(pre => { pre.closest('details')?.setAttribute('open', ''); return pre; })
    .filter(pre => pre.scrollWidth > pre.clientWidth + 1)
    .map(pre => `${pre.scrollWidth} > ${pre.clientWidth}: ` +
        pre.textContent.split('\\n').reduce((a, b) => a.length > b.length ? a : b))"""


def test_no_line_of_code_is_cut_off_on_a_screen(page_name, visit):
    assert visit(page_name, 1280).page.evaluate(CUT_OFF) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_a_page_loads_whole_and_fits(page_name, width, scheme, visit):
    visited = visit(page_name, width, scheme)
    assert visited.faults == []
    for check in (IMAGES, DRAWINGS, FORMULAS, RAW_TABLES, TOO_WIDE):
        assert visited.page.evaluate(check) == []
    assert visited.faults == []
    assert visited.page.title()


SMALL_LETTERS = """() => [...document.querySelectorAll('article svg.drawing')].flatMap(svg => {
    const scale = svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
    return [...svg.querySelectorAll('text, tspan')].filter(text => text.textContent.trim())
        .filter(text => parseFloat(getComputedStyle(text).fontSize) * scale < 11).map(text => text.textContent);
})"""


def test_letters_in_drawings_are_legible_on_a_phone(page_name, visit):
    assert visit(page_name, 390).page.evaluate(SMALL_LETTERS) == []


def test_every_promised_picture_is_there(site):
    """A cell that describes its picture has one, also if the environment of the build sets MPLBACKEND.

    So has a page that includes a drawing.
    """
    total = 0
    for source in DOCS.rglob("*.md"):
        text = source.read_text(encoding="utf-8")
        promised = len(re.findall(r"^  image:\n    alt:", text, re.MULTILINE))
        drawings = len(re.findall(r"^:file: \S+\.svg$", text, re.MULTILINE))
        if promised or drawings:
            page = (site / source.relative_to(DOCS)).with_suffix(".html").read_text(encoding="utf-8")
            assert len(re.findall(r'<img alt="[^"]{20,}"[^>]* src="[^"]*_images/', page)) == promised, source
            assert len(re.findall(r'<svg [^>]*class="drawing', page)) == drawings, source
        total += promised + drawings
    assert total >= 33  # a page may not lose its promise with its picture


def test_a_build_fails_where_a_promised_picture_is_missing(tmp_path):
    cell = "```{code-cell} ipython3\n---\nmystnb:\n  image:\n    alt: A line.\n---\nprint(1)\n```\n"
    header = "---\nfile_format: mystnb\nkernelspec: {name: python3, display_name: Python 3}\n---\n"
    (tmp_path / "index.md").write_text(f"{header}# A page\n\n{cell}")
    (tmp_path / "conf.py").write_text(
        f"import sys\nsys.path.insert(0, {str(DOCS / '_extensions')!r})\n"
        "extensions = ['myst_nb', 'promised_pictures']\n"
    )
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", tmp_path, tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    assert "this cell describes a picture, but shows none" in done.stderr


def test_code_can_be_copied(visit):
    page = visit("tutorial/01_one_step.html").page
    assert page.locator("button.copybtn").count() >= page.locator(".cell_input").count() > 5


def test_formulas_are_there_at_all(visit):
    assert visit("conventions.html").page.locator("mjx-container svg").count() > 10


def test_figures_have_a_white_background_in_the_dark_theme(visit):
    page = visit("index.html", color_scheme="dark").page
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
    colour = page.evaluate("getComputedStyle(document.querySelector('.cell_output img')).backgroundColor")
    assert colour == "rgb(255, 255, 255)"


def test_the_search_finds_pages(visit):
    page = visit("search.html?q=forget_bias").page
    page.wait_for_selector("#search-results li a", timeout=10_000)
    assert page.locator("#search-results li a").count() > 3


def test_the_sliders_move_the_plot(visit):
    visited = visit("gradient_flow.html")
    drawn = lambda: visited.page.evaluate(  # noqa: E731
        "[...document.querySelectorAll('#flow-plot path')].map(path => path.getAttribute('d'))"
    )
    for name in ("forget-bias", "length", "clip"):
        before = drawn()
        slider = visited.page.locator(f"#{name}")
        slider.focus()
        slider.press("Home")  # by keyboard, as a reader without a mouse would
        first = drawn()
        slider.press("End")
        assert first != drawn(), name
        assert before
    assert visited.faults == []


class Links(html.parser.HTMLParser):
    """The addresses and the anchors of one page."""

    def __init__(self, text):
        super().__init__()
        self.addresses, self.anchors = set(), set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if name in ("href", "src") and value:
                self.addresses.add(value)
            elif name in ("id", "name") and value:
                self.anchors.add(value)


def test_every_link_inside_the_site_leads_somewhere(site):
    from conftest import pages

    links = {name: Links((site / name).read_text(encoding="utf-8")) for name in pages(site)}
    broken = []
    for name, page in links.items():
        for address in page.addresses:
            parts = urllib.parse.urlsplit(address)
            if parts.scheme or parts.netloc:
                continue
            target = ((site / name).parent / urllib.parse.unquote(parts.path)).resolve() if parts.path else site / name
            found = links.get(str(target.relative_to(site)))
            anchor = urllib.parse.unquote(parts.fragment)
            if not target.exists() or (found and anchor and anchor not in found.anchors and anchor not in ("", "#")):
                broken.append(f"{name}: {address}")
    assert broken == []


def test_a_name_that_a_page_refers_to_is_a_link(site):
    """Sphinx shows a role whose target it does not find as plain code, without a warning."""
    plain = []
    for path in site.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        plain += [(path.name, name) for name in re.findall(r'(?<!">)<code class="xref py [^>]*>(.*?)</code>', text)]
    assert plain == []


def test_every_name_of_the_package_can_be_looked_up(site):
    """Other sites and the index find the objects that Sphinx has described."""
    import minilstm

    raw = (site / "objects.inv").read_bytes().split(b"\n", 4)[4]
    described = {line.split(" ")[0] for line in zlib.decompress(raw).decode().splitlines()}
    for name in minilstm.__all__:
        if name.startswith("__"):
            continue
        value = getattr(minilstm, name)
        module = getattr(value, "__module__", None)
        rooms = [module.rsplit(".", k)[0] for k in range(3)] if module else []
        homes = {f"{room}.{name}" for room in rooms} or {value.__name__}  # a package describes what it hands on
        assert homes & described, name
