"""The code, tables and pictures of the README are correct."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_first_lines_draw_their_picture(in_empty_folder):
    names = {}
    exec(BLOCKS[0].replace("epochs=40", "epochs=2"), names)
    assert (in_empty_folder / "forecast.png").stat().st_size > 10_000
    assert names["forecast"].shape == (120,)
    assert np.isfinite(names["forecast"]).all()
    assert max(map(len, BLOCKS[0].splitlines())) <= 76


def test_the_many_to_one_model_learns_and_resumes_from_its_checkpoint(in_empty_folder):
    names = {}
    exec(BLOCKS[1], names)
    assert names["accuracy"] > 0.95
    exec(BLOCKS[2], names)
    assert names["checkpoint"].step == 4 * 16
    assert names["outputs"].shape == (3, 2)


def test_every_python_block_is_run_here():
    assert len(BLOCKS) == 3


def test_the_table_of_sunspots_is_the_experiments(monkeypatch):
    """The numbers of the simple forecasts, which need no training, are compared with the experiment's."""
    monkeypatch.syspath_prepend(str(ROOT))
    from experiments import sunspots

    years, numbers = sunspots.sunspots()
    forecasts = sunspots.simple_forecasts(numbers, years <= sunspots.LAST_TRAINING_YEAR)
    names = {"ar12": "AR(12)", "ar2": "AR(2)", "persistence": "persistence"}
    for name, forecast in forecasts.items():
        row = re.search(rf"^\| {re.escape(names[name])} .*$", README, flags=re.MULTILINE)
        assert row, name
        expected = [f"{value:.3f}" for value in sunspots.scores(years, numbers, forecast).values()]
        assert re.findall(r"\d\.\d{3}", row.group()) == expected
    assert "sunspots_settings" in README
    assert sys.modules["experiments"]


def test_the_part_on_speed_is_what_was_measured(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from experiments import readme

    said = readme.speed(readme.MEASURED)
    assert f"<!-- begin: speed -->\n{said}\n<!-- end: speed -->" in README
    assert readme.replace_block(README, "speed", said) == README
    for peer in ("minilstm", "torch", "jax", "keras (tensorflow)"):
        assert f"| {peer} " in said


def test_an_unknown_part_of_the_readme_is_refused(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(ROOT))
    from experiments import readme

    with pytest.raises(SystemExit):
        readme.main(["sped"])
    assert "parts must be of ('sunspots', 'speed'), got ['sped']" in capsys.readouterr().err
    assert (ROOT / "README.md").read_text() == README


def test_the_pictures_are_there():
    for name in re.findall(r"\]\((docs/images/[^)]+)\)", README):
        assert (ROOT / name).stat().st_size > 5_000
