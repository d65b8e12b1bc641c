// Two small machines in the chapters: one step of one unit (chapter 1), and truncation (chapter 6).
//
// The mathematics is in lstm.js. tests/site/test_sliders.py compares the numbers with minilstm.

"use strict";

// One step of one unit from a given state. Returns the gates i, j, f, o and the new c and h.
function oneStep(cell, x, cBefore, hBefore) {
  const z = [0, 1, 2, 3].map((k) => x * cell.kernel[0][k] + hBefore * cell.kernel[1][k] + cell.bias[k]); // (1) (2)
  const [i, j, f, o] = [sigmoid(z[0]), Math.tanh(z[1]), sigmoid(z[2] + cell.forgetBias), sigmoid(z[3])];
  const c = f * cBefore + i * j; // (6)
  return { i, j, f, o, c, h: o * Math.tanh(c) };
}

// The share of the kernel's gradient that is missing if the way back ends after 1, 2, ... steps. The loss uses the last
// output alone, with the same derivative for every unit.
function missingShares(cell, inputs) {
  const units = cell.bias.length / 4;
  const steps = forward(cell, inputs);
  const last = steps.length - 1;
  const dOutputs = steps.map((_, t) => new Array(units).fill(t === last ? 1 / Math.sqrt(units) : 0));
  const flow = backward(cell, steps, dOutputs);
  const found = flow.dKernel.map((row) => row.map(() => 0));
  const norm = (rows) => Math.sqrt(rows.flat().reduce((sum, value) => sum + value * value, 0));
  const shares = [];
  for (let t = last; t >= 0; t -= 1) {
    steps[t].row.forEach((value, k) => flow.dz[t].forEach((d, column) => { found[k][column] += value * d; }));
    shares.push(norm(found.map((row, k) => row.map((value, column) => value - flow.dKernel[k][column]))) / norm(flow.dKernel));
  }
  return shares;
}

// --- the pages ----------------------------------------------------------------------------------------------------

function sliderValues(box, show) {
  const sliders = [...box.querySelectorAll("input")];
  const update = () => {
    for (const slider of sliders) box.querySelector(`output[for=${slider.id}]`).textContent = slider.value;
    show(Object.fromEntries(sliders.map((slider) => [slider.id, Number(slider.value)])));
  };
  for (const slider of sliders) slider.addEventListener("input", update);
  update();
}

const stepBox = document.getElementById("one-step");
if (stepBox !== null) {
  const cell = JSON.parse(stepBox.dataset.cell);
  sliderValues(stepBox, (values) => {
    const result = oneStep(cell, values["step-x"], values["step-c"], values["step-h"]);
    for (const [name, value] of Object.entries(result)) {
      const row = stepBox.querySelector(`tr[data-name=${name}]`);
      row.querySelector("td:last-child").textContent = value.toFixed(3).replace("-", "−");
      const bar = row.querySelector("span"); // -2 to 2 from left to right
      bar.style.left = `${50 + 25 * Math.min(0, Math.max(-2, value))}%`;
      bar.style.width = `${25 * Math.min(2, Math.abs(value))}%`;
    }
  });
}

const cutBox = document.getElementById("truncation");
if (cutBox !== null) {
  const data = JSON.parse(document.getElementById("truncation-data").textContent);
  sliderValues(cutBox, (values) => {
    const shares = missingShares({ ...data, forgetBias: values["cut-bias"] }, data.inputs);
    const steps = values["cut-steps"];
    const share = shares[steps - 1];
    cutBox.querySelector(".cut-kept").style.width = `${(100 * steps) / data.inputs.length}%`;
    cutBox.querySelector(".cut-summary").textContent = `The gradient goes back ${steps} of ${data.inputs.length} steps. ` +
      `Missing: ${share > 1e-4 ? `${(100 * share).toPrecision(3)} %` : `${share.toExponential(1)} of its norm`}.`;
  });
}
