"""The sunspots model forecasts the same thirty years everywhere."""

import numpy as np
import pytest
from export.worker import Worker

pytestmark = pytest.mark.interop


@pytest.mark.parametrize("legacy", ["0", "1"], ids=["Keras 3", "legacy tf.keras"])
def test_thirty_years_are_the_same_in_every_library(tmp_path, legacy):
    with Worker(TF_USE_LEGACY_KERAS=legacy) as worker:
        found = worker.run(
            f"from experiments.export_forecast import main\nresults.update(main(['--out', {str(tmp_path)!r}]))"
        )
    assert set(found) == {"minilstm", "TensorFlow", "Keras", "PyTorch", "onnxruntime"}
    for name, forecast in found.items():
        assert forecast.shape == (30,)
        assert np.max(np.abs(forecast - found["minilstm"])) < 1e-3, name  # of sunspot numbers up to about 100
    assert np.ptp(found["minilstm"]) > 10  # there is something to agree on
    assert (tmp_path / "forecast.png").stat().st_size > 10_000
