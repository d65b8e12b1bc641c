// The page machine.html: an LSTM of three steps and two units whose every number can be seen and changed.
//
// The mathematics is in lstm.js, and what the lines say in machine_lines.js. One number, `position`, says how many lines have been computed: first nine equations
// a step and the loss, then eleven lines a step of the sweep back. All that is shown follows from it and the settings.

"use strict";

// Compute everything: a setting is {kernel, bias, forgetBias, inputs, target, rate}. The loss is half the squared
// distance of the last output from the target.
function machineRun(setting) {
  const { kernel, bias, forgetBias, inputs, target } = setting;
  const rate = Math.fround(setting.rate); // minilstm's optimizers take it in float32, as TensorFlow's do
  const cell = { kernel, bias, forgetBias };
  const rows = inputs.map((x) => [x]);
  const steps = forward(cell, rows);
  const last = steps.length - 1;
  const errors = steps[last].h.map((h, u) => h - target[u]);
  const dOutputs = rows.map((_, t) => (t === last ? errors : errors.map(() => 0)));
  const flow = backward(cell, steps, dOutputs);
  return {
    steps,
    flow,
    dOutputs,
    loss: errors.reduce((sum, e) => sum + e * e / 2, 0),
    dInputs: flow.dz.map((dz) => dz.reduce((sum, d, column) => sum + d * kernel[0][column], 0)),
    kernel: kernel.map((row, k) => row.map((w, column) => w - rate * flow.dKernel[k][column])),
    bias: bias.map((b, column) => b - rate * flow.dBias[column]),
  };
}

// --- the page -----------------------------------------------------------------------------------------------------

class Machine {
  constructor(setting) {
    this.setting = setting;
    this.position = 0;
    this.losses = [];
    this.compute();
  }

  compute() {
    this.run = machineRun(this.setting);
    this.time = this.setting.inputs.length;
    this.forwardLines = 9 * this.time + 1;
    this.allLines = this.forwardLines + BACKWARD.length * this.time;
  }

  change(values) {
    this.setting = { ...this.setting, ...values };
    this.losses = [];
    this.position = 0;
    this.compute();
  }

  update() {
    this.losses.push(this.run.loss);
    this.setting = { ...this.setting, kernel: this.run.kernel, bias: this.run.bias };
    this.position = 0;
    this.compute();
  }

  // The line that was computed last (the first one at the start): its direction, step and place among its step's lines.
  get now() {
    const k = Math.max(0, this.position - 1);
    if (k < this.forwardLines - 1) return { back: false, t: Math.floor(k / 9), place: k % 9 };
    if (k === this.forwardLines - 1) return { back: false, t: this.time - 1, place: 9 };
    const b = k - this.forwardLines;
    return { back: true, t: this.time - 1 - Math.floor(b / BACKWARD.length), place: b % BACKWARD.length };
  }

  // Whether line `place` of step t has been computed, forwards or back.
  done(back, t, place) {
    const before = back ? this.forwardLines + (this.time - 1 - t) * BACKWARD.length : 9 * t;
    return before + place < this.position;
  }

  lines(back, t) {
    if (back) return BACKWARD;
    return t === this.time - 1 ? [...FORWARD, LOSS] : FORWARD;
  }

  numbers(line, t, u) {
    const { run, setting } = this;
    const d = { dh: run.flow.dh[t], dc: run.flow.dc[t], dz: run.flow.dz[t] };
    return line[3]({ s: run.steps[t], d, u, t, last: this.time - 1, run, setting });
  }
}

const SVG_SPACE = "http://www.w3.org/2000/svg";
const find = (id) => document.getElementById(id);

function shape(name, attributes, text) {
  const made = document.createElementNS(SVG_SPACE, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

const SUBSCRIPTS = "₀₁₂₃₄₅₆₇₈₉";

// Draw the unrolled LSTM. The letters have the same size on every screen: the drawing is as wide as its place.
function drawMachine(machine, svg) {
  const width = Math.max(svg.clientWidth, 300);
  const column = width / machine.time;
  const { now, run } = machine;
  const lit = new Set();
  if (machine.position > 0) {
    for (const part of machine.lines(now.back, now.t)[now.place][2]) {
      const t = now.t + (part.endsWith("-") ? -1 : part.endsWith("+") ? 1 : 0);
      lit.add(part.replace(/[-+]/, "") + t);
    }
  }
  const parts = [];
  const arrow = (id, path, gate = "") => parts.push(shape("path", {
    d: path, class: `arrow ${gate && `gate-${gate}`} ${lit.has(id) ? "lit" : ""}`, "marker-end": "url(#machine-head)" }));
  const label = (x, y, text, attributes = {}) => parts.push(shape("text", { x, y, "text-anchor": "middle", ...attributes }, text));
  const box = (id, x, y, w, title, values, derivatives, gate = "") => {
    const height = 18 + 13 * 4;
    parts.push(shape("rect", { x: x - w / 2, y, width: w, height, rx: 6, "data-part": id,
      class: `box ${gate && `gate-${gate}`} ${lit.has(id) ? "lit" : ""}` }));
    label(x, y + 14, title, { class: "title" });
    values.forEach((value, u) => label(x, y + 28 + 13 * u, value));
    derivatives.forEach((value, u) => label(x, y + 54 + 13 * u, value, { class: "derivative" }));
  };
  const [hTop, cTop, gTop, xTop] = [8, 108, 216, 396];
  for (let t = 0; t < machine.time; t += 1) {
    const x = column * (t + 0.5);
    const s = run.steps[t];
    const seen = (place, values) => (machine.done(false, t, place) ? values.map(number) : ["·", "·"]);
    const felt = (place, values) => (machine.done(true, t, place) ? values.map((value) => `d ${number(value)}`) : []);
    const name = (letter) => letter + SUBSCRIPTS[t];
    const big = Math.min(64, column - 50);
    const gateX = { f: x - 25, i: x + 25, j: x - 25, o: x + 25 };
    const gateY = { f: gTop, i: gTop, j: gTop + 76, o: gTop + 76 };
    // arrows first, boxes over them
    const right = column * (t + 1);
    if (t + 1 < machine.time) {
      arrow(`cc${t + 1}`, `M${x + big / 2},${cTop + 35}H${x + column - big / 2 - 2}`);
      arrow(`w${t + 1}`, `M${x + big / 2},${hTop + 35}H${right}V${gTop + 74}H${x + column - 52}`);
      const f = machine.done(false, t + 1, 4) ? run.steps[t + 1].f.map(number) : ["f", ""];
      const gap = (right + x + column - big / 2) / 2; // between the line of W and the next c
      f.forEach((value, u) => label(gap, cTop + 18 + 12 * u, value, { class: "factor" }));
      label(right - 3, hTop + 28, "Wᵀ", { class: "factor", "text-anchor": "end" });
    }
    arrow(`ch${t}`, `M${x},${cTop}V${hTop + 72}`);
    const factors = machine.done(false, t, 7) ? s.a.map((a, u) => number(s.o[u] * (1 - a * a))) : ["", "o(1−a²)"];
    label(x - 4, cTop - 8, factors[0], { class: "factor", "text-anchor": "end" });
    label(x + 4, cTop - 8, factors[1], { class: "factor", "text-anchor": "start" });
    arrow(`f${t}`, `M${gateX.f},${gTop}L${x - 8},${cTop + 72}`, "f");
    arrow(`i${t}`, `M${gateX.i - 4},${gTop}L${x + 8},${cTop + 72}`, "i");
    arrow(`j${t}`, `M${gateX.j + 22},${gTop + 78}L${x},${cTop + 72}`, "j");
    arrow(`o${t}`, `M${gateX.o + 14},${gTop + 76}V${gTop + 73}H${x + 49}V${hTop + 50}H${x + big / 2 + 2}`, "o");
    const uses = [[-40, "c₋₁"], [30, "j"], [5, "i"]]; // the factors of f, i and j on their way to c
    uses.forEach(([dx, text], k) => label(x + dx, gTop - (k === 2 ? 16 : 8), text, { class: "factor" }));
    label(x + 41, cTop + 60, "a", { class: "factor" }); // and of o on its way to h
    arrow(`x${t}`, `M${x},${xTop}V${gTop + 150}`);
    box(`h${t}`, x, hTop, big, name("h"), seen(8, s.h), felt(0, run.flow.dh[t]));
    box(`c${t}`, x, cTop, big, name("c"), seen(5, s.c), felt(3, run.flow.dc[t]));
    const lines = { i: [2, 8, 0], j: [3, 7, 1], f: [4, 6, 2], o: [6, 4, 3] };
    for (const [gate, [place, backPlace, k]] of Object.entries(lines)) {
      box(`${gate}${t}`, gateX[gate], gateY[gate], 46, gate, seen(place, s[gate]),
        felt(backPlace, run.flow.dz[t].slice(k * UNITS, (k + 1) * UNITS)), gate);
    }
    const dx = machine.done(true, t, 10) ? `, d ${number(run.dInputs[t])}` : "";
    parts.push(shape("rect", { x: x - 48, y: xTop, width: 96, height: 24, rx: 6, "data-part": `x${t}`, class: `box ${lit.has(`x${t}`) ? "lit" : ""}` }));
    label(x, xTop + 16, `${name("x")} = ${number(machine.setting.inputs[t])}${dx}`);
  }
  svg.setAttribute("viewBox", `0 0 ${width} 428`);
  svg.setAttribute("height", 428);
  svg.querySelector("#machine-drawing").replaceChildren(...parts);
}

function showLines(machine) {
  const { back, t, place } = machine.now;
  find("machine-caption").textContent = `${back ? "Back" : "Forward"}, step ${t} of 0 to ${machine.time - 1}`;
  find("machine-lines").replaceChildren(...machine.lines(back, t).map((line, k) => {
    const row = document.createElement("tr");
    const done = machine.done(back, t, k);
    row.className = [done ? "done" : "", done && k === place ? "lit" : "",
      back && (k === 0 || k === 3) ? "recurrence" : ""].join(" ");
    const cells = [`<th scope="row"><span class="equation">${line[0]}</span> ${line[1](t, machine.time - 1)}</th>`];
    for (let u = 0; u < UNITS; u += 1) {
      cells.push(`<td>${done ? machine.numbers(line, t, u).join("<br>") : ""}</td>`);
    }
    row.innerHTML = cells.join("");
    return row;
  }));
}

function startMachine() {
  const data = JSON.parse(find("machine-data").textContent);
  const machine = new Machine(data.setting);
  const svg = find("machine-plot");
  const rows = ["x", "h, unit 0", "h, unit 1", "bias"];
  const fields = []; // [input, read the setting, change the setting]

  const field = (parent, label, read, write, hidden = false) => {
    const wrapper = document.createElement("label");
    const input = Object.assign(document.createElement("input"), { type: "number", step: "0.1" });
    if (hidden) input.setAttribute("aria-label", label);
    else wrapper.append(`${label} `);
    wrapper.append(input);
    parent.append(wrapper);
    input.addEventListener("change", () => {
      const value = Number(input.value);
      if (input.value !== "" && Number.isFinite(value)) machine.change(write(value));
      show();
    });
    fields.push([input, read]);
    return wrapper;
  };
  const replaced = (list, k, value) => list.map((old, place) => (place === k ? value : old));
  data.setting.inputs.forEach((_, t) => field(find("machine-inputs"), `x${SUBSCRIPTS[t]}`, () => machine.setting.inputs[t],
    (value) => ({ inputs: replaced(machine.setting.inputs, t, value) })));
  data.setting.target.forEach((_, u) => field(find("machine-inputs"), `target, unit ${u}`, () => machine.setting.target[u],
    (value) => ({ target: replaced(machine.setting.target, u, value) })));
  field(find("machine-inputs"), "forget bias", () => machine.setting.forgetBias, (value) => ({ forgetBias: value }));
  field(find("machine-inputs"), "learning rate", () => machine.setting.rate, (value) => ({ rate: value }));

  const derivatives = [];
  GATES.forEach((gate, k) => {
    const table = document.createElement("table");
    table.className = `gate-${gate}`;
    table.innerHTML = `<caption>gate ${gate}</caption><thead><tr><th></th><th scope="col">unit 0</th><th scope="col">unit 1</th></tr></thead>`;
    const body = table.createTBody();
    rows.forEach((name, row) => {
      const line = body.insertRow();
      line.innerHTML = `<th scope="row">${name}</th>`;
      for (let u = 0; u < UNITS; u += 1) {
        const place = k * UNITS + u;
        const inBias = row === 3;
        const wrapper = field(line.insertCell(), `gate ${gate}, ${name}, to unit ${u}`,
          () => (inBias ? machine.setting.bias[place] : machine.setting.kernel[row][place]),
          (value) => (inBias ? { bias: replaced(machine.setting.bias, place, value) }
            : { kernel: replaced(machine.setting.kernel, row, replaced(machine.setting.kernel[row], place, value)) }), true);
        const derivative = document.createElement("small");
        wrapper.append(derivative);
        derivatives.push([derivative, () => (inBias ? machine.run.flow.dBias[place] : machine.run.flow.dKernel[row][place])]);
      }
    });
    find("machine-weights").append(table);
  });

  const moves = {
    "machine-forward": () => { machine.position += 1; },
    "machine-all-forward": () => { machine.position = machine.forwardLines; },
    "machine-back": () => { machine.position += 1; },
    "machine-all-back": () => { machine.position = machine.allLines; },
    "machine-update": () => machine.update(),
    "machine-ten": () => { for (let k = 0; k < 10; k += 1) machine.update(); },
    "machine-undo": () => { machine.position -= 1; },
    "machine-reset": () => { machine.change(data.setting); },
    "machine-random": () => {
      const random = () => Math.round(20 * (2 * Math.random() - 1)) / 10;
      machine.change({ kernel: data.setting.kernel.map((row) => row.map(random)), bias: data.setting.bias.map(random) });
    },
  };
  const allowed = {
    "machine-forward": () => machine.position < machine.forwardLines,
    "machine-all-forward": () => machine.position < machine.forwardLines,
    "machine-back": () => machine.position >= machine.forwardLines && machine.position < machine.allLines,
    "machine-all-back": () => machine.position >= machine.forwardLines && machine.position < machine.allLines,
    "machine-update": () => machine.position === machine.allLines,
    "machine-undo": () => machine.position > 0,
  };

  // A button that may not be pressed keeps the focus of the keyboard: it is marked, not disabled.
  const mayPress = (id) => !(id in allowed) || allowed[id]();
  for (const [id, move] of Object.entries(moves)) {
    find(id).addEventListener("click", () => {
      if (!mayPress(id)) return;
      move();
      show();
    });
  }

  function summary() {
    const losses = [...machine.losses, machine.run.loss];
    const fall = losses.length > 1 ? ` After ${losses.length - 1} update${losses.length > 2 ? "s" : ""} the loss went from ` +
      `${losses[0].toPrecision(4)} to ${machine.run.loss.toPrecision(4)}.` : "";
    if (machine.position === 0) return `Nothing is computed yet. Press Step forward.${fall}`;
    if (machine.position === machine.forwardLines) return `The loss is ${machine.run.loss.toPrecision(4)}. Now step back.${fall}`;
    if (machine.position === machine.allLines) return `Every weight has its derivative: it is below the weight. Press Update.${fall}`;
    const { back, t, place } = machine.now;
    const line = machine.lines(back, t)[place];
    const rule = back && (place === 0 || place === 3) ? "This is one of the two recurrences." : "";
    return `${back ? "Back" : "Forward"}, step ${t}, ${line[0].startsWith("(") ? `equation ${line[0]}` : `d${line[0]}`}. ${rule}${fall}`;
  }

  function show() {
    drawMachine(machine, svg);
    showLines(machine);
    for (const [input, read] of fields) input.value = String(Number(read().toFixed(4)));
    for (const [element, read] of derivatives) {
      element.textContent = machine.position === machine.allLines ? `d ${number(read())}` : "";
    }
    for (const id of Object.keys(moves)) find(id).setAttribute("aria-disabled", String(!mayPress(id)));
    find("machine-summary").textContent = summary();
  }

  const wanted = data.reference;
  const found = machineRun(data.setting);
  const pairs = [[found.flow.dKernel.flat(), wanted.d_kernel.flat()], [found.kernel.flat(), wanted.kernel.flat()],
    [found.steps.map((s) => s.h).flat(), wanted.h.flat()]];
  const difference = Math.max(...pairs.map(([a, b]) => Math.max(...a.map((value, k) => Math.abs(value - b[k])))));
  find("machine-check").textContent =
    `At the first setting, the outputs, the kernel's derivatives and the updated kernel computed here and by minilstm ` +
    `differ by at most ${difference.toExponential(1)}.`;
  find("machine").machine = machine; // for the tests
  window.addEventListener("resize", show);
  show();
}

if (find("machine-plot") !== null) startMachine(); // the script is deferred: the page is there
