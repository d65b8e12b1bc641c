"""Second derivatives by hand.

`tangents` is the derivative of the derivative of an LSTM, step by step; `pairs` says what autograd must know of it;
`lists` derives functions of several arrays at once.
"""
