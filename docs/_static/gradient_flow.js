// The page gradient_flow.html: three sliders that drive the LSTM of lstm.js.
//
// It uses no library and fetches nothing. tests/site/test_gradient_flow.py compares it with minilstm.

"use strict";

// --- what the plot shows -----------------------------------------------------------------------------------------

function norm(values) {
  return Math.sqrt(values.reduce((sum, value) => sum + value * value, 0));
}

// The factor by which clipping by global norm multiplies all gradients.
function clipFactor(globalNorm, clipNorm) {
  return globalNorm > clipNorm && Number.isFinite(globalNorm) ? clipNorm / globalNorm : 1;
}

// Compute what the plot shows: |dc_t| and |dh_t|, the norm of the weights' gradient, and the factor of the clipping.
// The loss has the derivative 1 / sqrt(units) for each output of the last step, so that |dh| is 1 there.
function gradientFlow(cell, inputs, clipNorm) {
  const units = cell.bias.length / 4;
  const last = inputs.length - 1;
  const dOutputs = inputs.map((_, t) => new Array(units).fill(t === last ? 1 / Math.sqrt(units) : 0));
  const flow = backward(cell, forward(cell, inputs), dOutputs);
  const weightNorm = norm([...flow.dKernel.flat(), ...flow.dBias]);
  return { dc: flow.dc.map(norm), dh: flow.dh.map(norm), weightNorm, factor: clipFactor(weightNorm, clipNorm) };
}

// --- the page ----------------------------------------------------------------------------------------------------

const LOW = -16; // the powers of ten at the ends of the vertical axis
const HIGH = 4;
const MARGIN = { left: 52, right: 14, top: 14, bottom: 44 }; // in CSS pixels
const SVG = "http://www.w3.org/2000/svg";

function element(name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

function superscript(integer) {
  return String(integer).replace("-", "⁻").replace(/[0-9]/g, (digit) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[digit]);
}

function shown(number) {
  return Number.isFinite(number) && number !== 0 && (number < 1e-3 || number >= 1e4)
    ? number.toExponential(2)
    : String(Number(number.toPrecision(3)));
}

// The path of a curve through the norms of all steps. A norm of 0 has no logarithm and interrupts the curve.
function curve(norms, toX, toY) {
  let pen = "M";
  return norms
    .map((value, t) => {
      if (!(value > 0)) {
        pen = "M";
        return "";
      }
      const point = `${pen}${toX(t).toFixed(2)},${toY(Math.log10(value)).toFixed(2)}`;
      pen = "L";
      return point;
    })
    .join("");
}

function draw(plot, result, longest) {
  const width = Math.max(plot.clientWidth, 280); // in its own pixels, so that letters keep their size on a phone
  const height = Math.round(Math.min(400, Math.max(260, 0.55 * width)));
  const right = width - MARGIN.right;
  const bottom = height - MARGIN.bottom;
  const toX = (t) => MARGIN.left + ((right - MARGIN.left) * t) / (longest - 1);
  const toY = (power) => bottom - ((bottom - MARGIN.top) * (power - LOW)) / (HIGH - LOW);
  const parts = [];
  for (let power = LOW; power <= HIGH; power += 4) {
    const y = toY(power);
    const name = power === 0 ? "flow-one" : "flow-grid";
    parts.push(element("line", { class: name, x1: MARGIN.left, x2: right, y1: y, y2: y }));
    parts.push(element("text", { x: MARGIN.left - 8, y: y + 4, "text-anchor": "end" }, `10${superscript(power)}`));
  }
  for (let t = 0; t < longest; t += 50) {
    parts.push(element("text", { x: toX(t), y: bottom + 18, "text-anchor": "middle" }, String(t)));
  }
  parts.push(element("text", { x: (MARGIN.left + right) / 2, y: height - 6, "text-anchor": "middle" }, "time step"));
  const frame = element("clipPath", { id: "flow-frame" });
  const inside = { x: MARGIN.left, y: MARGIN.top, width: right - MARGIN.left, height: bottom - MARGIN.top };
  frame.append(element("rect", inside));
  parts.push(frame);
  const clipped = (norms) => norms.map((value) => value * result.factor);
  const curves = [["flow-dc", clipped(result.dc)], ["flow-dh", clipped(result.dh)]];
  if (result.factor < 1) curves.unshift(["flow-unclipped", result.dc]);
  for (const [name, norms] of curves) {
    parts.push(element("path", { id: name, class: name, d: curve(norms, toX, toY), "clip-path": "url(#flow-frame)" }));
  }
  plot.setAttribute("viewBox", `0 0 ${width} ${height}`);
  plot.setAttribute("height", height);
  plot.querySelector("#flow-drawing").replaceChildren(...parts);
}

function largestDifference(found, wanted) {
  return Math.max(...found.map((value, t) => Math.abs(value - wanted[t]) / wanted[t]));
}

function start() {
  const data = JSON.parse(document.getElementById("flow-data").textContent);
  const plot = document.getElementById("flow-plot");
  const sliders = ["forget-bias", "length", "clip"].map((id) => document.getElementById(id));
  const [forgetBias, length, clip] = sliders;
  const cellWith = (bias) => ({ kernel: data.kernel, bias: data.bias, forgetBias: bias });

  const say = (slider, text) => {
    document.getElementById(`${slider.id}-value`).textContent = text;
    slider.setAttribute("aria-valuetext", text);
  };

  const update = () => {
    const off = Number(clip.value) === Number(clip.max);
    const clipNorm = off ? Infinity : 10 ** Number(clip.value);
    const inputs = data.inputs.slice(0, Number(length.value));
    const result = gradientFlow(cellWith(Number(forgetBias.value)), inputs, clipNorm);
    draw(plot, result, data.inputs.length);
    say(forgetBias, Number(forgetBias.value).toFixed(1));
    say(length, `${length.value} steps`);
    say(clip, off ? "off" : shown(clipNorm));
    const first = (norms) => shown(norms[0] * result.factor);
    document.getElementById("flow-summary").textContent =
      `At step 0: |dc| = ${first(result.dc)}, |dh| = ${first(result.dh)}. ` +
      `The gradient of kernel and bias has norm ${shown(result.weightNorm)}; ` +
      (result.factor < 1 ? `clipping multiplies everything by ${shown(result.factor)}.` : "nothing is clipped.");
  };

  const wanted = data.reference;
  const found = gradientFlow(cellWith(wanted.forget_bias), data.inputs, Infinity);
  const difference = Math.max(largestDifference(found.dc, wanted.dc), largestDifference(found.dh, wanted.dh));
  document.getElementById("flow-check").textContent =
    `Computed here and by minilstm, at forget bias ${wanted.forget_bias} and ${data.inputs.length} steps, the norms ` +
    `differ by at most ${difference.toExponential(1)} of their size.`;

  for (const slider of sliders) slider.addEventListener("input", update);
  window.addEventListener("resize", update);
  update();
}

if (document.getElementById("flow-plot") !== null) start(); // the script is deferred: the page is there
