// What each line of the page machine.html says: its formula, and how its numbers come about.

"use strict";

const GATES = ["i", "j", "f", "o"]; // the order of the kernel's column blocks
const UNITS = 2;

function number(value) {
  const size = Math.abs(value);
  const text = size === 0 ? "0" : size < 0.001 ? value.toExponential(0) : size < 0.1 ? value.toFixed(3) : value.toFixed(2);
  return text.replaceAll("-", "−");
}

function named(name, t) {
  const [, d, letter, gate] = name.match(/^(d?)(\w)(\w?)$/);
  return `${d}<i>${letter}</i>${gate ? `<sup>${gate}</sup>` : ""}<sub>${t < 0 ? "−1" : t}</sub>`;
}

const product = (...factors) => factors.map((x) => (x < 0 ? `(${number(x)})` : number(x))).join("·");

// Each line: the number of its equation, its formula for step t, the parts of the drawing that it lights, and its
// numbers for unit u. `s` is the step, `d` has the derivatives of the step, `run` is all.
const FORWARD = [
  ["(1)", (t) => `${named("z", t)} = [${named("x", t)}, ${named("h", t - 1)}] W + b`, ["x", "h-", "w", "i", "j", "f", "o"],
    ({ s, u, setting }) => GATES.map((gate, k) => {
      const terms = s.row.map((value, row) => product(value, setting.kernel[row][k * UNITS + u]));
      const b = setting.bias[k * UNITS + u];
      return `${gate}: ${terms.join(" + ")} + ${product(b)} = ${number(s.z[k * UNITS + u])}`;
    })],
  ["(2)", (t) => `${GATES.map((gate) => named(`z${gate}`, t)).join(", ")} = blocks of ${named("z", t)}`, GATES,
    ({ s, u }) => GATES.map((gate, k) => `z<sup>${gate}</sup> = ${number(s.z[k * UNITS + u])}`)],
  ["(3)", (t) => `${named("i", t)} = σ(${named("zi", t)})`, ["i"], ({ s, u }) => [`σ(${number(s.zI[u])}) = ${number(s.i[u])}`]],
  ["(4)", (t) => `${named("j", t)} = tanh(${named("zj", t)})`, ["j"],
    ({ s, u }) => [`tanh(${number(s.zJ[u])}) = ${number(s.j[u])}`]],
  ["(5)", (t) => `${named("f", t)} = σ(${named("zf", t)} + forget bias)`, ["f"],
    ({ s, u, setting }) => [`σ(${number(s.zF[u])} + ${product(setting.forgetBias)}) = ${number(s.f[u])}`]],
  ["(6)", (t) => `${named("c", t)} = ${named("f", t)}${named("c", t - 1)} + ${named("i", t)}${named("j", t)}`,
    ["c-", "cc", "f", "i", "j", "c"],
    ({ s, u }) => [`${product(s.f[u], s.before.c[u])} + ${product(s.i[u], s.j[u])} = ${number(s.c[u])}`]],
  ["(7)", (t) => `${named("o", t)} = σ(${named("zo", t)})`, ["o"], ({ s, u }) => [`σ(${number(s.zO[u])}) = ${number(s.o[u])}`]],
  ["(8)", (t) => `${named("a", t)} = tanh(${named("c", t)})`, ["c", "ch"],
    ({ s, u }) => [`tanh(${number(s.c[u])}) = ${number(s.a[u])}`]],
  ["(9)", (t) => `${named("h", t)} = ${named("o", t)}${named("a", t)}`, ["o", "ch", "h"],
    ({ s, u }) => [`${product(s.o[u], s.a[u])} = ${number(s.h[u])}`]],
];

const LOSS = ["L", (t) => `L = ½ Σ (${named("h", t)} − target)²`, ["h"],
  ({ s, u, setting }) => [`½·(${number(s.h[u])} − ${product(setting.target[u])})² = ${number((s.h[u] - setting.target[u]) ** 2 / 2)}`]];

const BACKWARD = [
  ["h", (t, last) => (t === last ? `${named("dh", t)} = ${named("h", t)} − target`
    : `${named("dh", t)} = 0 + ${named("dz", t + 1)} W<sub>h</sub><sup>⊤</sup>`), ["h", "w+"],
    ({ s, d, u, t, last, setting }) => [t === last ? `${number(s.h[u])} − ${product(setting.target[u])} = ${number(d.dh[u])}`
      : `the loss sends 0, the next step ${number(d.dh[u])}`]],
  ["(9)", (t) => `${named("do", t)} = ${named("dh", t)}${named("a", t)}`, ["h", "o"],
    ({ s, d, u }) => [`${product(d.dh[u], s.a[u])} = ${number(d.dh[u] * s.a[u])}`]],
  ["(9)", (t) => `${named("da", t)} = ${named("dh", t)}${named("o", t)}`, ["h", "ch"],
    ({ s, d, u }) => [`${product(d.dh[u], s.o[u])} = ${number(d.dh[u] * s.o[u])}`]],
  ["(8)", (t, last) => `${named("dc", t)} = ${named("da", t)}(1 − ${named("a", t)}²) + ` +
    (t === last ? "0" : `${named("dc", t + 1)}${named("f", t + 1)}`), ["c", "ch", "cc+"],
    ({ s, d, u, t, last, run }) => {
      const next = t === last ? "0" : product(run.flow.dc[t + 1][u], run.steps[t + 1].f[u]);
      return [`${product(d.dh[u] * s.o[u], 1 - s.a[u] ** 2)} + ${next} = ${number(d.dc[u])}`];
    }],
  ["(7)", (t) => `${named("dzo", t)} = ${named("do", t)}${named("o", t)}(1 − ${named("o", t)})`, ["o"],
    ({ s, d, u }) => [`${product(d.dh[u] * s.a[u], s.o[u], 1 - s.o[u])} = ${number(d.dz[3 * UNITS + u])}`]],
  ["(6)", (t) => `${named("di", t)} = ${named("dc", t)}${named("j", t)}, ${named("dj", t)} = ${named("dc", t)}${named("i", t)}, ` +
    `${named("df", t)} = ${named("dc", t)}${named("c", t - 1)}`, ["c", "i", "j", "f"],
    ({ s, d, u }) => [["i", s.j[u]], ["j", s.i[u]], ["f", s.before.c[u]]]
      .map(([gate, factor]) => `d${gate}: ${product(d.dc[u], factor)} = ${number(d.dc[u] * factor)}`)],
  ["(5)", (t) => `${named("dzf", t)} = ${named("df", t)}${named("f", t)}(1 − ${named("f", t)})`, ["f"],
    ({ s, d, u }) => [`${product(d.dc[u] * s.before.c[u], s.f[u], 1 - s.f[u])} = ${number(d.dz[2 * UNITS + u])}`]],
  ["(4)", (t) => `${named("dzj", t)} = ${named("dj", t)}(1 − ${named("j", t)}²)`, ["j"],
    ({ s, d, u }) => [`${product(d.dc[u] * s.i[u], 1 - s.j[u] ** 2)} = ${number(d.dz[UNITS + u])}`]],
  ["(3)", (t) => `${named("dzi", t)} = ${named("di", t)}${named("i", t)}(1 − ${named("i", t)})`, ["i"],
    ({ s, d, u }) => [`${product(d.dc[u] * s.j[u], s.i[u], 1 - s.i[u])} = ${number(d.dz[u])}`]],
  ["(1)", (t) => `dW gains [${named("x", t)}, ${named("h", t - 1)}]<sup>⊤</sup> ${named("dz", t)}, db gains ${named("dz", t)}`,
    ["x", "h-", ...GATES],
    ({ s, d, u }) => GATES.map((gate, k) => {
      const dz = d.dz[k * UNITS + u];
      return `${gate}: ${[...s.row, 1].map((value) => number(value * dz)).join(", ")}`;
    })],
  ["(1), (6)", (t) => `to step ${t - 1 < 0 ? "−1" : t - 1}: ${named("dz", t)} W<sub>h</sub><sup>⊤</sup> and ${named("dc", t)}${named("f", t)}`,
    ["w", "h-", "cc", "c-"],
    ({ s, d, u, setting }) => [
      `to h: ${number(d.dz.reduce((sum, value, column) => sum + value * setting.kernel[1 + u][column], 0))}`,
      `to c: ${product(d.dc[u], s.f[u])} = ${number(d.dc[u] * s.f[u])}`]],
];
