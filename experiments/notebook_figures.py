"""What two documents print about a small LSTM, and the networks they print it of.

The notebook computes two steps of an LSTM gate by gate in NumPy and then in TensorFlow (``BasicLSTMCell`` in
``static_rnn``). The thread is Stack Overflow's "How exactly does LSTMCell from TensorFlow operates?" with its answers.
Only their figures are here; the seeds they give draw their weights again.
"""

from __future__ import annotations

import numpy as np

from minilstm import RNN, BasicLSTMCell, LSTMCell, pack_gates, trace

# --- the notebook: seed 666, three units, two steps, seven sequences, no forget bias --------------------------

FIRST_STEP = {
    "f": """0.73197675 0.47829704 0.14818873  0.72108162 0.42521307 0.39621623  0.803063 0.64600098 0.19847554
            0.52329382 0.13093712 0.54991046  0.53695366 0.15733985 0.24465725  0.42369298 0.0703666 0.46189409
            0.42369298 0.0703666 0.46189409""",
    "i": """0.63398086 0.38071698 0.47031014  0.33550248 0.33821934 0.38522399  0.44305822 0.27068111 0.25494187
            0.41097131 0.53826357 0.74858656  0.70532456 0.58372589 0.80839608  0.60303837 0.65881495 0.88540241
            0.60303837 0.65881495 0.88540241""",
    "j": """-0.91020881 -0.84627754 -0.30849614  -0.84210478 -0.84863104 0.25236998
            -0.94571281 -0.97001537 0.2274545  -0.3853925 0.41343097 -0.25990321
            -0.60863589 0.42033073 -0.68730486  -0.14455062 0.85897178 -0.67310054
            -0.14455062 0.85897178 -0.67310054""",
    "c": """-0.57705497 -0.32219223 -0.14508886  -0.28252824 -0.28702343 0.09721897
            -0.41900584 -0.26256484 0.05798767  -0.15838526 0.22253483 -0.19456005
            -0.42928584 0.24535793 -0.55561455  -0.08716957 0.56590345 -0.59596484
            -0.08716957 0.56590345 -0.59596484""",
    "o": """0.35988304 0.63548882 0.48129936  0.59170634 0.64016035 0.63165424  0.55258817 0.75549002 0.61489521
            0.43632481 0.36626744 0.51697597  0.2309443 0.36158622 0.36674008  0.26055295 0.2459118 0.38347041
            0.26055295 0.2459118 0.38347041""",
    "h": """-0.18732691 -0.19794702 -0.06934527  -0.16286327 -0.17885625 0.06121604
            -0.21887607 -0.19392896 0.03561643  -0.06853529 0.08018793 -0.09933266
            -0.09346877 0.08697961 -0.18509972  -0.02265494 0.12599153 -0.20483916
            -0.02265494 0.12599153 -0.20483916""",
}
SECOND_STEP = {
    "f": """0.73528559 0.48961272 0.41596747  0.64370059 0.3783727 0.11063752  0.41346708 0.07816546 0.77566993
            0.86767698 0.7796711 0.28746087  0.65143778 0.22331033 0.67855644  0.91636119 0.88649464 0.13551464
            0.82307373 0.61399485 0.22592079""",
    "i": """0.31103588 0.28881093 0.38818704  0.79049644 0.46203379 0.71612819  0.29471608 0.55980818 0.85471167
            0.23526283 0.17177901 0.10700031  0.19775158 0.38391936 0.49576487  0.31200378 0.13376138 0.05694747
            0.38525131 0.26047344 0.22296482""",
    "j": """-0.78432438 -0.88253184 0.22512306  -0.77387942 -0.48696492 -0.72859097
            0.39736558 0.80327057 -0.26187089  -0.97100529 -0.99465661 0.72107866
            -0.64844727 -0.40564165 0.42313858  -0.99259941 -0.9988933 0.72326985
            -0.96227947 -0.96793572 0.37180929""",
    "c": """-0.66825323 -0.41263426 0.02703761  -0.79361252 -0.33359608 -0.51100847
            -0.05613509 0.42915393 -0.17884481  -0.3658687 0.00264284 0.02122724
            -0.40788449 -0.10094272 -0.16723859  -0.38957358 0.36805703 -0.03957357
            -0.44246641 0.09534026 -0.05174046""",
    "h": """-0.36193563 -0.24914643 0.01671874  -0.1327664 -0.15388951 -0.16010515
            -0.02722515 0.09417158 -0.09162839  -0.26709286 0.00222109 0.01537898
            -0.26673895 -0.05050129 -0.10521365  -0.27792859 0.31966786 -0.02818019
            -0.25550788 0.07233085 -0.03139437""",
}
# The same second step as TensorFlow printed it, in float32.
TENSORFLOW_C = """-0.66825318 -0.41263425 0.02703761  -0.79361254 -0.33359611 -0.5110085
    -0.05613507 0.42915395 -0.17884482  -0.36586872 0.00264281 0.02122722  -0.40788448 -0.10094272 -0.16723856
    -0.38957357 0.36805701 -0.03957358  -0.44246644 0.09534025 -0.05174047"""
TENSORFLOW_H = """-0.36193559 -0.2491464 0.01671874  -0.13276641 -0.15388954 -0.16010515
    -0.02722514 0.09417158 -0.0916284  -0.26709288 0.00222106 0.01537897  -0.26673889 -0.05050128 -0.10521362
    -0.27792859 0.31966782 -0.02818018  -0.25550792 0.07233085 -0.03139438"""
# What TensorFlow printed of the first step before the print was cut off.
TENSORFLOW_H1 = """-0.18732689 -0.19794703 -0.06934525  -0.16286328 -0.17885621 0.06121602
    -0.21887606 -0.19392894 0.03561642  -0.06853528 0.08018792 -0.09933265  -0.09346876 0.0869796 -0.18509974
    -0.02265495 0.12599154 -0.20483917"""

NOTEBOOK_INPUTS = np.array(
    [
        [[0, 1], [1, 0], [1, 1], [0, -1], [-1, 0], [-1, -1], [-1, -1]],
        [[1, 0], [-1, 1], [0, -2], [2, 1], [1, -1], [2, 2], [1, 1]],
    ],
    float,
)

# --- the thread: LSTMCell(3), seven steps of four inputs, zero state, zero bias -------------------------------

# Seed 0 with published weights: a NumPy implementation's print, and TensorFlow's.
SEED_0_NUMPY = [
    [-0.21386017, -0.08401277, -0.25431477],
    [-0.22243588, -0.25817422, -0.1612211],
    [-0.2282134, -0.14207162, -0.35017249],
    [-0.23286737, -0.17129192, -0.2706512],
    [-0.11768674, -0.20717363, -0.13339118],
    [-0.0599215, -0.17756104, -0.2028935],
    [0.11437953, -0.19484555, 0.05371994],
]
SEED_0_TENSORFLOW = [
    [-0.2138602, -0.08401276, -0.25431478],
    [-0.22243595, -0.25817424, -0.16122109],
    [-0.22821338, -0.1420716, -0.35017252],
    [-0.23286738, -0.1712919, -0.27065122],
    [-0.1176867, -0.2071736, -0.13339119],
    [-0.05992149, -0.177561, -0.2028935],
    [0.11437953, -0.19484554, 0.05371996],
]
# The question: TensorFlow's print and that of the author's code, for weights and inputs that nobody wrote down.
QUESTION_TENSORFLOW = [
    [-0.13285545, -0.13569424, -0.23993783],
    [-0.04818152, 0.05927373, 0.2558436],
    [-0.13818116, -0.13837864, -0.15348436],
    [-0.232219, 0.08512601, 0.05254192],
    [-0.20371495, -0.14795329, -0.2261929],
    [-0.10371902, -0.0263292, -0.0914975],
    [0.00286371, 0.16377522, 0.059478],
]
QUESTION_NUMPY = [
    [-0.13285543, -0.13569425, -0.23993781],
    [-0.01461723, 0.08060743, 0.30876374],
    [-0.13142865, -0.14921292, -0.16898363],
    [-0.09892188, 0.11739943, 0.08772941],
    [-0.15569218, -0.15165766, -0.21918869],
    [-0.0480604, -0.00918626, -0.06084118],
    [0.0963612, 0.1876516, 0.11888081],
]
# An answer: inputs 0 .. 27, weights that nobody wrote down.
COUNTING_LAST = [4.0385355e-11, -2.7728223e-04, 5.3957669e-14]


def array(text: str) -> np.ndarray:
    """A print of seven rows of three, or the part of it that is there, with NaN for the rest."""
    values = np.array([float(word) for word in text.split()])
    return np.concatenate([values, np.full(21 - len(values), np.nan)]).reshape(7, 3)


def notebook_network() -> tuple[BasicLSTMCell, dict[str, np.ndarray]]:
    """The notebook's cell and its weights.

    Every number is 2u - 1 for the next u of the legacy generator: a matrix and then a bias for each of the forget gate,
    the input gate, the candidate and the output gate, in this order.
    """
    legacy = np.random.RandomState(666)
    kernel, bias = {}, {}
    for gate in "fijo":
        kernel[gate] = legacy.random_sample((5, 3)) * 2 - 1
        bias[gate] = legacy.random_sample(3) * 2 - 1
    return BasicLSTMCell(3, forget_bias=0.0), {"kernel": pack_gates(**kernel), "bias": pack_gates(**bias)}


def notebook_trace() -> dict[str, np.ndarray]:
    """Gates and states of every step of the notebook, each ``[sequence, step, unit]``."""
    cell, params = notebook_network()
    return trace(RNN(cell), {"basic_lstm_cell": params}, np.swapaxes(NOTEBOOK_INPUTS, 0, 1))


def seed_0_network() -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The thread's inputs ``[1, 7, 4]`` and weights.

    28 normal numbers, then the kernel, uniform up to Glorot's limit, come from one legacy generator.
    """
    legacy = np.random.RandomState(0)
    inputs = legacy.normal(size=(1, 7, 4))
    limit = (6 / (7 + 12)) ** 0.5
    return inputs, {"kernel": legacy.uniform(-limit, limit, (7, 12)), "bias": np.zeros(12)}


def seed_0_trace(forget_bias: float = 1.0) -> dict[str, np.ndarray]:
    """Gates and states of every step of the thread's cell, each ``[1, step, unit]``."""
    inputs, weights = seed_0_network()
    return trace(RNN(LSTMCell(3, forget_bias=forget_bias)), {"lstm_cell": weights}, inputs)
