"""minilstm: an LSTM trainer from scratch in NumPy and autograd, in TensorFlow's layout.

from minilstm import LSTM, Adam, Dense, Sequential, fit, losses

model = Sequential(LSTM(32), Dense(1))
params = model.init(seed=0, input_dim=1)
result = fit(model, params, losses.mse, (inputs, targets), optimizer=Adam(1e-3), epochs=20)
"""

from . import data, gradcheck, initializers, losses, schedules, tensorbundle
from .cells import BasicLSTMCell, LSTMCell, LSTMState, pack_gates, split_gates
from .checkpoint import Checkpoint, latest_checkpoint, load_checkpoint, save_checkpoint
from .gradients import clip_by_global_norm, clip_by_value, global_norm, hessian_vector_product, jvp, value_and_grad
from .inference import generate, predict, sampler
from .introspection import gate_activations, gradient_flow, trace
from .layers import LSTM, RNN, Bidirectional, Dense, Dropout, Embedding, Layer, Sequential, from_config
from .optimizers import SGD, Adagrad, Adam, AdamW, Momentum, Optimizer, RMSProp
from .tensorbundle import CheckpointError
from .training import fit
from .training.loop import FitResult, ema_update
from .training.truncation import tbptt
from .variants import BasicRNNCell, CoupledLSTMCell, GRUCell
from .wrappers import DropoutWrapper, MultiRNNCell, ResidualWrapper

__version__ = "0.1.0"

__all__ = [
    "LSTM", "RNN", "SGD", "Adagrad", "Adam", "AdamW", "BasicLSTMCell", "BasicRNNCell", "Bidirectional", "Checkpoint",
    "CheckpointError", "CoupledLSTMCell", "Dense", "Dropout", "DropoutWrapper", "Embedding", "FitResult", "GRUCell",
    "LSTMCell", "LSTMState", "Layer", "Momentum", "MultiRNNCell", "Optimizer", "RMSProp", "ResidualWrapper",
    "Sequential", "__version__", "clip_by_global_norm", "clip_by_value", "data", "ema_update", "fit", "from_config",
    "gate_activations", "generate", "global_norm", "gradcheck", "gradient_flow", "hessian_vector_product",
    "initializers", "jvp", "latest_checkpoint", "load_checkpoint", "losses", "pack_gates", "predict", "sampler",
    "save_checkpoint", "schedules", "split_gates",
    "tbptt", "tensorbundle", "trace", "value_and_grad",
]  # fmt: skip
