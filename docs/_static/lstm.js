// An LSTM forwards and backwards in plain JavaScript, for the pages gradient_flow.html and machine.html.
//
// It implements minilstm/cells.py and minilstm/bptt.py again, for one sequence and the plain cell, with the same
// equations and the same numbers (1) to (9). tests/site compares the two. It uses no library.
//
// A cell is {kernel, bias, forgetBias}. The kernel has inputDim + units rows of 4 * units numbers. Its column blocks
// are the gates i, j, f, o (TensorFlow's layout). inputs is one sequence: time rows of inputDim numbers.

"use strict";

function sigmoid(x) {
  const e = Math.exp(-Math.abs(x)); // never overflows
  return (x >= 0 ? 1 : e) / (1 + e);
}

// Run a sequence. Returns its steps, each with everything that the step computed and the state before it.
function forward(cell, inputs) {
  const units = cell.bias.length / 4;
  let c = new Array(units).fill(0);
  let h = new Array(units).fill(0);
  return inputs.map((x) => {
    const before = { c, h };
    const row = x.concat(h);
    const z = cell.bias.map((b, column) => row.reduce((sum, x, k) => sum + x * cell.kernel[k][column], b)); // (1)
    const [zI, zJ, zF, zO] = [0, 1, 2, 3].map((k) => z.slice(k * units, (k + 1) * units)); // (2)
    const i = zI.map(sigmoid); // (3)
    const j = zJ.map(Math.tanh); // (4)
    const f = zF.map((value) => sigmoid(value + cell.forgetBias)); // (5)
    c = before.c.map((value, u) => f[u] * value + i[u] * j[u]); // (6)
    const o = zO.map(sigmoid); // (7)
    const a = c.map(Math.tanh); // (8)
    h = o.map((value, u) => value * a[u]); // (9)
    return { row, before, z, zI, zJ, zF, zO, i, j, f, o, c, a, h };
  });
}

// Go back from the last step to the first. dOutputs has a row of units numbers for each step: the derivatives of the
// loss with respect to the outputs. The numbers say which equations a line undoes.
// dzI, dzJ, dzF, dzO are the derivatives with respect to the pre-activations (dz_i, dz_j, dz_f, dz_o in bptt.py).
function backward(cell, steps, dOutputs) {
  const units = cell.bias.length / 4;
  const flow = {
    dc: [], // d loss / d c_t of each step, all paths counted
    dh: [], // d loss / d h_t
    dz: [], // d loss / d z_t: dz_i, dz_j, dz_f, dz_o side by side
    dKernel: cell.kernel.map((row) => row.map(() => 0)),
    dBias: cell.bias.map(() => 0),
  };
  let dc = new Array(units).fill(0);
  let dh = new Array(units).fill(0);
  for (let t = steps.length - 1; t >= 0; t -= 1) {
    const { row, before, i, j, f, o, a } = steps[t];
    const inputDim = row.length - units;
    dh = dh.map((value, u) => value + dOutputs[t][u]);
    const dzO = dh.map((value, u) => value * a[u] * o[u] * (1 - o[u])); // (9), (7)
    dc = dc.map((value, u) => value + dh[u] * o[u] * (1 - a[u] * a[u])); // (9), (8)
    const dzI = dc.map((value, u) => value * j[u] * i[u] * (1 - i[u])); // (6), (3)
    const dzJ = dc.map((value, u) => value * i[u] * (1 - j[u] * j[u])); // (6), (4)
    const dzF = dc.map((value, u) => value * before.c[u] * f[u] * (1 - f[u])); // (6), (5)
    const dz = [...dzI, ...dzJ, ...dzF, ...dzO]; // (2)
    flow.dc[t] = dc;
    flow.dh[t] = dh;
    flow.dz[t] = dz;
    row.forEach((value, k) => dz.forEach((d, column) => { flow.dKernel[k][column] += value * d; })); // (1)
    dz.forEach((d, column) => { flow.dBias[column] += d; }); // (1)
    dh = dh.map((_, u) => dz.reduce((sum, d, column) => sum + d * cell.kernel[inputDim + u][column], 0)); // (1)
    dc = dc.map((value, u) => value * f[u]); // (6)
  }
  return flow;
}
