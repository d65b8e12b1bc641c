"""`experiments.export_forecast` where no other library is installed."""

import sys

from experiments import export_forecast


def test_what_is_missing_is_said_with_the_line_that_installs_it(tmp_path, monkeypatch):
    for name in ("tensorflow", "keras", "h5py", "torch", "safetensors", "safetensors.numpy", "onnx", "onnxruntime"):
        monkeypatch.setitem(sys.modules, name, None)
    lines = []
    found = export_forecast.main(["--out", str(tmp_path), "--epochs", "1"], report=lines.append)
    assert set(found) == {"minilstm"}
    text = "\n".join(lines)
    assert "pip install tensorflow" in text
    assert "pip install torch safetensors" in text
    assert text.count("pip install 'minilstm[export]'") == 2
    assert (tmp_path / "forecast.csv").read_text().splitlines()[0] == "year,minilstm"
    (tmp_path / "forecast.csv").write_text("of a run before")
    export_forecast.main(["--out", str(tmp_path), "--epochs", "1", "--quiet"])
    assert (tmp_path / "forecast.csv").read_text().splitlines()[0] == "year,minilstm"
