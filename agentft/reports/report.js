"use strict";
// Every text of the data becomes a text node; no markup, address or style is ever made from it.
const data = JSON.parse(document.getElementById("data").textContent);
const { summary, labels } = data;
const FIRST_ROWS = 40;
const HEADLINES = ["success", "exact_call", "abstention", "answer"];
const NAMES = { lost: "Lost", failed: "Failed", invalid: "Invalid", only: "In one arm only", gained: "Gained", solved: "Solved" };
const FILTERS = { tool: "tool", error: "error class", category: "category", lang: "language" };
const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g;

const visible = (text) =>
  String(text).replace(/\r\n/g, "\n").replace(HIDDEN, (found) => "\\u" + found.charCodeAt(0).toString(16).padStart(4, "0"));

function fill(node, ...children) {
  node.append(...children.flat().filter((child) => child || child === 0)
    .map((child) => (child instanceof Node ? child : document.createTextNode(visible(child)))));
  return node;
}
function make(tag, names, ...children) {
  const node = document.createElement(tag);
  if (names) node.className = names;
  return fill(node, ...children);
}
const byId = (id) => document.getElementById(id);
const button = (names, action, ...children) => {
  const node = make("button", names, ...children);
  node.type = "button";
  node.addEventListener("click", action);
  return node;
};
const json = (value) => JSON.stringify(value, null, 1);
const percent = (value, digits = 1) => (value * 100).toFixed(digits);
const signed = (value, digits = 1) => (value < 0 ? "−" : "+") + percent(Math.abs(value), digits);
const cases = (count) => (count === 1 ? "1 case" : `${count} cases`);

function table(head, rows) {
  const cell = (tag, value, at) => {
    const node = value instanceof HTMLTableCellElement ? value : make(tag, "", value);
    if (at > 0 && node.dataset.kind === "number") node.classList.add("number");
    return node;
  };
  const line = (tag, values) => make("tr", "", values.map((value, at) => cell(tag, value, at)));
  return make("div", "scroll", make("table", "", make("thead", "", line("th", head)),
    make("tbody", "", rows.map((row) => (row instanceof Node ? row : line("td", row))))));
}
const number = (tag, ...children) => {
  const node = make(tag, "number", ...children);
  node.dataset.kind = "number";
  return node;
};

// The figures

function figure(found) {
  if (!found || found.value === null) return number("td", make("span", "dim", "–"));
  return number("td", percent(found.value), make("span", "interval", `${percent(found.low, 0)}–${percent(found.high, 0)}`));
}
function difference(delta) {
  if (!delta || delta.value === null) return [number("td", make("span", "dim", "–")), number("td", "")];
  const open = !delta.shown;
  const size = make("span", open ? "" : delta.value > 0 ? "good" : "bad", signed(delta.value));
  const range = make("span", "interval", `${signed(delta.low, 0)} to ${signed(delta.high, 0)}`);
  const tested = delta.p_holm ?? delta.p;
  const p = tested === null ? "" : tested < 0.001 ? "< 0.001" : tested.toFixed(3);
  return [number("td", size, range), number("td", p)];
}
function figures(name, compared, names) {
  const counts = [...new Set(labels.map((label) => compared[label]?.n ?? 0))];
  const row = make("tr", names, make("td", "", name), labels.map((label) => figure(compared[label])),
    labels.length === 2 ? difference(compared.delta) : [],
    number("td", counts.join(" / "), counts.length > 1 && compared.delta?.p != null && make("span", "interval", `${compared.delta.n} in both`)));
  return row;
}
const figureHead = (title) => [title, ...labels.map((label) => number("th", label)),
  ...(labels.length === 2 ? [number("th", "difference"), number("th", "p")] : []), number("th", "cases")];

function metrics() {
  const rows = Object.entries(summary.metrics).filter(([, found]) => labels.some((label) => found[label]?.n));
  return table(figureHead("metric"), rows.map(([name, found]) => figures(name, found, HEADLINES.includes(name) ? "headline" : "")));
}
function pairTables() {
  const name = summary.metrics.bfcl?.delta?.table ? "bfcl" : "exact_call";
  const { delta } = summary.metrics[name];
  const [one, other] = labels;
  const cells = (found) => [number("td", String(found[0])), number("td", String(found[1]))];
  const spread = delta?.by_tool;
  const parts = [];
  if (delta?.table) {
    const [both, first, second, neither] = delta.table;
    parts.push(table([name, number("th", `${other}: right`), number("th", `${other}: wrong`)],
      [[`${one}: right`, ...cells([both, first])], [`${one}: wrong`, ...cells([second, neither])]]));
  }
  if (spread) parts.push(make("p", "", `Resampled by the ${spread.clusters} sets of expected tools instead of by case, the 95 % interval of the difference is ${signed(spread.low)} to ${signed(spread.high)} points.`));
  return parts;
}
function reliability() {
  const found = labels.map((label) => summary.arms[label].reliability);
  const powers = [...new Set(found.flatMap((one) => Object.keys(one?.pass_k ?? {})))].sort((one, two) => one - two);
  return table(["", ...labels.map((label) => number("th", label))], [
    ...powers.map((k) => [`pass^${k}: all of ${k} trials succeed`, ...found.map((one) => figure(one?.pass_k[k]))]),
    ["solved in some trials only", ...found.map((one) => figure(one?.flips))]]);
}
function groups(title, found, key) {
  const rows = Object.entries(found).map(([name, group]) => {
    const metric = group.metrics.bfcl ? "bfcl" : group.metrics.exact_call ? "exact_call" : group.metrics.abstention ? "abstention" : Object.keys(group.metrics)[0];
    const open = button("link", () => choose({ [key]: name }), name);
    return metric && figures(open, group.metrics[metric], "");
  });
  return table(figureHead(title), rows.filter(Boolean));
}
function failures() {
  const rows = data.failures.map((group) => [
    number("td", String(group.cases.length)),
    ...(labels.length === 2 ? [number("td", String(group.lost))] : []),
    make("td", "", button("link", () => choose({ error: group.error }), group.error)),
    make("td", "", make("code", "", group.tools || "–")),
    make("td", "", make("code", "", group.pointer || "–")),
    make("td", "wide dim", data.classes[group.error] ?? ""),
    make("td", "", group.cases.slice(0, 2).map((id, at) => [at ? ", " : "", button("link mono", () => choose({ case: id }), id)]).flat()),
  ]);
  const lost = labels.length === 2 ? [number("th", "regressions")] : [];
  return table([number("th", "cases"), ...lost, "error class", "expected tool", "argument", make("th", "wide", "meaning"), "for example"], rows);
}
function failed() {
  const one = (label) => `${label} (${summary.arms[label].format ?? "unknown format"}${summary.arms[label].shots ? `, ${summary.arms[label].shots} examples in the prompt` : ""}): ${summary.failures[label].format} because no call could be read, ${summary.failures[label].decision} by a wrong decision.`;
  return summary.failures ? labels.map(one).join(" ") : "";
}
function errors() {
  return table(["error class", ...labels.map((label) => number("th", label)), make("th", "wide", "meaning")],
    Object.entries(summary.errors).map(([kind, counts]) => [
      make("td", "", button("link", () => choose({ error: kind }), kind)),
      ...labels.map((label) => number("td", String(counts[label] ?? 0))),
      make("td", "wide dim", data.classes[kind] ?? ""),
    ]));
}
// Where it fails

const MOST_TOOLS = 20, MOST_ARGUMENTS = 15;
const strength = (share) => `heat${Math.min(4, Math.ceil(share * 4))}`;
function confusion(cells) {
  const [first, second] = labels;
  const wrong = cells.filter((cell) => cell.expected !== cell.called);
  if (!wrong.length) return make("p", "", "Every call was of the expected tool, and none was left out.");
  const plain = (name) => !/^\(/.test(name);
  const names = (key) => [...new Set(wrong.map((cell) => cell[key]))].slice(0, MOST_TOOLS).sort((one, other) => plain(other) - plain(one));
  const rows = names("expected"), confused = names("called");
  const columns = [...confused.filter((name) => !plain(name)), ...rows.filter(plain), ...confused.filter((name) => plain(name) && !rows.includes(name))];
  const at = new Map(cells.map((cell) => [JSON.stringify([cell.expected, cell.called]), cell]));
  const total = (name) => cells.filter((cell) => cell.expected === name).reduce((sum, cell) => sum + cell.counts[first], 0);
  const body = rows.map((row) => [make("td", "", make("code", "", row)), ...columns.map((column) => {
    const cell = at.get(JSON.stringify([row, column]));
    if (!cell) return number("td", make("span", "dim", "·"));
    const count = cell.counts[first], right = row === column;
    const shown = count && !right ? button("link", () => choose({ where: `${row} → ${column}` }), String(count)) : String(count);
    const node = number("td", shown, labels.length === 2 ? make("span", "interval", String(cell.counts[second])) : "");
    if (count) node.classList.add(...(right ? ["right"] : ["heat", strength(count / total(row))]));
    return node;
  }), number("td", String(total(row)))]);
  const all = new Set(cells.map((cell) => cell.expected)), confusedRows = new Set(wrong.map((cell) => cell.expected)).size;
  const notes = [all.size > confusedRows && `Rows without an error, not shown: ${all.size - confusedRows}.`, confusedRows > rows.length && `Not shown: ${confusedRows - rows.length} tools with fewer errors.`];
  return make("div", "", table(["expected \\ called", ...columns.map((name) => number("th", make("code", "tilt", name))), number("th", "calls")], body),
    notes.filter(Boolean).map((text) => make("p", "dim", text)));
}
function argumentMap(cells) {
  const cell = (found) => {
    const node = figure(found);
    if (found && found.value !== null) {
      node.append(make("span", "interval", `n ${found.n}`));
      if (found.value < 1) node.classList.add("heat", strength(1 - found.value)); else node.classList.add("right");
    }
    return node;
  };
  const line = (one) => {
    const kinds = Object.entries(one.wrong).map(([kind, count]) => `${kind} ${count}`).join(", ");
    const name = one.cases.length ? button("link mono", () => choose({ where: `${one.tool}.${one.argument}` }), one.argument) : make("code", "", one.argument);
    return [make("td", "", make("code", "", one.tool)), make("td", "", name), ...labels.map((label) => cell(one.arms[label])), make("td", "dim gap", kinds)];
  };
  const build = (shown) => table(["tool", "argument", ...labels.map((label) => number("th", `${label}: right`)), make("th", "gap", `${labels[0]}: not right`)], shown.map(line));
  const box = make("div", "", build(cells.slice(0, MOST_ARGUMENTS)));
  if (cells.length > MOST_ARGUMENTS) box.append(button("", () => box.replaceChildren(build(cells)), `Show all ${cells.length} arguments`));
  return box;
}
function changes(found) {
  const before = Object.keys(found);
  const after = [...new Set(before.flatMap((old) => Object.keys(found[old])))];
  for (const list of [before, after]) list.sort((one, other) => (other === "solved") - (one === "solved"));
  return table([`${labels[1]} \\ ${labels[0]}`, ...after.map((kind) => number("th", make("span", "tilt", kind)))], before.map((old) => [make("td", "nowrap", old), ...after.map((kind) => {
    const count = found[old][kind] ?? 0;
    const node = number("td", count ? String(count) : make("span", "dim", "·"));
    if (count && old !== kind) node.classList.add(kind === "solved" ? "right" : old === "solved" ? "heat" : "changed");
    return node;
  })]));
}
function overfit(found) {
  const rows = Object.entries(found).flatMap(([name, arms]) => Object.entries(arms).map(([label, { original, derived, index }]) => [name, label,
    number("td", percent(original.value)), number("td", percent(derived.value)),
    number("td", `${signed(index.value)} (${signed(index.low)} to ${signed(index.high)})`), number("td", String(index.n))]));
  return table(["derived suite", "model", "suite", "derived", "overfit index", "n"], rows);
}
// Probabilities

const SVG = byId("svg").namespaceURI;
function draw(tag, attributes, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, String(value));
  node.append(...children.map((child) => (child instanceof Node ? child : document.createTextNode(visible(child)))));
  return node;
}
function chart(title, across, up, lines) {
  const size = 220, at = (x, y) => `${40 + x * size},${10 + (1 - y) * size}`;
  const marks = [0, 0.25, 0.5, 0.75, 1].flatMap((mark) => [
    draw("text", { x: 40 + mark * size, y: size + 26, "text-anchor": "middle" }, percent(mark, 0)),
    draw("text", { x: 34, y: 14 + (1 - mark) * size, "text-anchor": "end" }, percent(mark, 0)),
    draw("path", { d: `M${at(0, mark)}L${at(1, mark)}`, class: "grid" })]);
  const node = draw("svg", { viewBox: `0 0 ${size + 60} ${size + 50}`, role: "img", "aria-label": title, class: "chart" }, ...marks,
    draw("text", { x: 40 + size / 2, y: size + 44, "text-anchor": "middle" }, `${across}, %`),
    draw("text", { x: 10, y: 10 + size / 2, "text-anchor": "middle", transform: `rotate(-90 10 ${10 + size / 2})` }, `${up}, %`),
    ...lines.map(({ points, names, dots }) => draw("g", { class: names },
      draw("path", { d: points.map(([x, y], index) => (index ? "L" : "M") + at(x, y)).join("") }),
      ...(dots ? points.map(([x, y]) => draw("circle", { cx: 40 + x * size, cy: 10 + (1 - y) * size, r: 3 })) : []))));
  return make("figure", "", make("figcaption", "dim", title), node);
}
function calibration(label, found) {
  const at = found.thresholds.find((one) => one.above === 0.9);
  const share = (one) => (one.calls ? percent(one.wrong / one.calls) : "–");
  const curve = found.curve.map((one) => [one.calls / found.calls, one.wrong / one.calls]);
  return make("div", "", make("h3", "", label),
    make("p", "", make("strong", "", `Execute without asking above 0.9: ${at.calls} of ${found.calls} calls, of which ${at.wrong} wrong.`),
      ` Without a threshold ${found.wrong} are wrong. Calibration error (ECE, ${found.bins.length} of 10 bins of equal width have calls): ${found.ece.toFixed(3)}.`),
    make("div", "charts",
      chart("Risk and coverage", "calls executed", "of these wrong", [{ points: curve, names: "line" }]),
      chart("Reliability", "probability of the call", "right", [{ points: [[0, 0], [1, 1]], names: "grid" },
        { points: found.bins.map((one) => [one.mean, one.right.value]), names: "line", dots: true }])),
    table(["above", number("th", "calls"), number("th", "wrong"), number("th", "wrong, %")], found.thresholds.map((one) =>
      [String(one.above), number("td", String(one.calls)), number("td", String(one.wrong)), number("td", share(one))])),
    table(["probability", number("th", "calls"), number("th", "mean, %"), number("th", "right")], found.bins.map((one) =>
      [`${one.low} to ${one.high}`, number("td", String(one.calls)), number("td", percent(one.mean)), figure(one.right)])));
}
function expectedParts(found) {
  const kinds = ["decision", "name", "key", "value", "stop"], arms = Object.keys(found);
  const meaning = { decision: "to begin a call", name: "of the tool", key: "of an argument", value: "of an argument", stop: "to end the reply" };
  return table(["part", ...arms.map((arm) => number("th", arm)), "meaning"], kinds.map((kind) => [kind, ...arms.map((arm) => figure(found[arm].expected[kind])), make("td", "dim", meaning[kind])]));
}
function verdictLine() {
  const tone = { pass: "good", fail: "bad", none: "" }[summary.verdict] ?? "warn";
  const text = summary.verdict === "none" ? "no gate" : `verdict: ${summary.verdict}`;
  const size = data.smallest === null ? "no difference" : `a difference of ${percent(data.smallest)} points or more`;
  const delta = summary.metrics.exact_call.delta;
  const found = delta && delta.value !== null
    ? `Difference in exact calls: ${signed(delta.value)} points, 95 % interval ${signed(delta.low)} to ${signed(delta.high)}, n = ${delta.n}.`
    : "";
  const [finding, ...cautions] = summary.finding.split(/(?<=\.) /);
  fill(byId("verdict"),
    make("h1", "", `agentft evaluation · ${labels.map((label) => `${label}: ${summary.arms[label].name}`).join(" · ")}`),
    make("span", `badge ${tone}`, text),
    make("p", "finding", finding),
    cautions.length ? make("p", "", cautions.join(" ")) : null,
    make("p", "", found, found && " ", `With ${cases(data.compared)}, ${size} can be shown reliably`,
      make("span", "dim", " (exact McNemar test at 5 %, power 80 %, if the arms differ in 20 % of the cases).")),
    summary.forgetting && make("p", "", make("strong", "", "Forgetting: "), summary.forgetting.finding),
    make("p", "", `${cases(summary.cases)}, ${summary.trials === 1 ? "1 trial" : `${summary.trials} trials`} each. `,
      summary.invalid ? make("span", "warn", `${cases(summary.invalid)} invalid, not caused by the model, left out of every figure.`) : ""),
    ...summary.gates.map((gate) => make("p", gate.passed ? "good" : "bad", gate.sentence)),
    ...Object.entries(summary.problems).slice(0, 3).map(([problem, count]) => make("p", "warn", `${count} × ${problem}`)));
}
function provenance() {
  const entries = [["command", data.command], ["scorer version", summary.scorer_version], ["world seed", summary.world_seed],
    ["sampling", JSON.stringify(summary.sampling)],
    ...labels.map((label) => [label, ["name", "format", "shots", "identity", "frame_sha256", "fingerprint", "tokens"]
      .filter((key) => summary.arms[label][key] != null).map((key) => `${key.replace("_", " ")} ${summary.arms[label][key]}`).join(" · ")]),
    ...Object.entries(summary.hashes).map(([name, value]) => [`${name} sha256`, value]),
    ["versions", Object.entries(summary.versions).map(([name, version]) => `${name} ${version}`).join(", ")],
    ["next step", data.failures.length ? data.next : ""]];
  byId("provenance").append(make("h2", "", "To repeat it"), make("dl", "",
    entries.filter(([, value]) => value !== "" && value != null).flatMap(([name, value]) => [make("dt", "", name), make("dd", "", make("code", "", String(value)))])));
}
function section(title, note, body) {
  fill(byId("overview"), make("h2", "", title), note && make("p", "dim", note), body);
}
verdictLine();
if (data.failures.length) section("What to fix first", `The most frequent first errors of ${labels[0]}: ${data.failures.reduce((sum, group) => sum + group.cases.length, 0)} of ${cases(data.failed)} that failed.`, failures());
if (data.failures.length && data.next) byId("overview").append(make("p", "", "Proposed training rows for these failures: ", make("code", "", data.next)));
section("Metrics", "Percent with 95 % intervals; differences over the cases that count in both arms.", metrics());
if (labels.length === 2) byId("overview").append(...pairTables());
if (labels.some((label) => summary.arms[label].reliability)) section("Trials", "", reliability());
const adjusted = labels.length === 2 ? " p is adjusted for the number of rows (Holm); a difference is coloured if p < 0.05." : "";
section("Categories", `exact_call, or abstention where no call is expected.${adjusted}`, groups("category", summary.categories, "category"));
if (Object.keys(summary.languages).length > 1) section("Languages", "", groups("language", summary.languages, "lang"));
if (Object.keys(summary.errors).length) section("First error of each failed case", failed(), errors());
const { diagnosis } = summary;
if (diagnosis) {
  const beside = labels.length === 2 ? ` Small: ${labels[1]}.` : "";
  section("Tools called", `Expected tools in rows, calls of ${labels[0]} in columns.${beside} A number opens its cases.`, confusion(diagnosis.confusion));
  if (diagnosis.arguments.length) section("Arguments", "How often an argument is right, percent with 95 % intervals, in n calls of the right tool that expect it or pass it.", argumentMap(diagnosis.arguments));
  if (Object.keys(diagnosis.changes).length) section("Errors before and after", `First error of each run: ${labels[1]} in rows, ${labels[0]} in columns.`, changes(diagnosis.changes));
}
if (summary.overfit) section("Derived suites", "How often the cases of a suite are solved, and those derived from them; the overfit index is the difference, with its 95 % interval.", overfit(summary.overfit));
if (summary.calibration) {
  section("Probabilities", "Of the calls that a model made: the product over the tokens of each call, from one pass over its reply. A call is right if it is exact.",
    make("div", "", Object.entries(summary.calibration).map(([label, found]) => (found.calls ? calibration(label, found) : ""))));
  section("Expected calls, part by part", "The mean probability of the parts of the first expected calls, given all before them; percent with 95 % intervals.", expectedParts(summary.calibration));
}
provenance();

// The cases

const state = { view: "", q: "", tool: "", error: "", category: "", lang: "", where: "", case: "" };
const places = new Map([
  ...(diagnosis?.confusion ?? []).map((cell) => [`${cell.expected} → ${cell.called}`, cell.cases]),
  ...(diagnosis?.arguments ?? []).map((cell) => [`${cell.tool}.${cell.argument}`, cell.cases]),
].map(([name, ids]) => [name, new Set(ids)]));
let index = [], shown = [], current = -1;
const packs = new Map();
const controls = {};

async function inflate(id) {
  const bytes = Uint8Array.from(atob(JSON.parse(byId(id).textContent)), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return JSON.parse(await new Response(stream).text());
}
const pack = (number) => {
  if (!packs.has(number)) packs.set(number, inflate(`pack${number}`));
  return packs.get(number);
};

function mark(entry, arm) {
  const rate = entry.rates[arm], trials = entry.trials[arm];
  const words = trials === 0 ? "not run" : rate === null ? "invalid" : rate === 1 ? "solved" : rate === 0 ? "failed" : `solved in ${percent(rate, 0)} %`;
  const sign = trials === 0 ? "·" : rate === null ? "!" : rate === 1 ? "✓" : rate === 0 ? "✗" : `${percent(rate, 0)}%`;
  const tone = rate === null ? (trials ? "warn" : "dim") : rate === 1 ? "good" : "bad";
  const node = make("span", `mark ${tone}`, sign);
  node.title = `${labels[arm]}: ${words}`;
  node.setAttribute("aria-label", node.title);
  node.setAttribute("role", "img");
  return node;
}
const onlyIn = (entry) => labels.filter((_, arm) => entry.trials[arm] > 0).join(", ");
function note(entry) {
  if (entry.outcome === "only") return `only in ${onlyIn(entry)}`;
  if (entry.outcome === "invalid") return "invalid";
  return entry.errors[0] ?? (entry.errors[1] ? `${labels[1]}: ${entry.errors[1]}` : "");
}
function row(entry, at) {
  const item = make("li");
  const head = button("row", () => { select(at); toggle(item, entry); },
    make("span", "marks", labels.map((_, arm) => mark(entry, arm))), make("span", "id", entry.id),
    make("span", "ask text", entry.user), make("span", "error dim", note(entry)));
  head.setAttribute("aria-expanded", "false");
  item.append(head);
  return item;
}
async function toggle(item, entry, open = !item.querySelector(".detail")) {
  const old = item.querySelector(".detail");
  if (open === Boolean(old)) return;
  item.firstChild.setAttribute("aria-expanded", String(open));
  state.case = open ? entry.id : "";
  keep();
  if (old) return old.remove();
  const box = make("div", "detail", make("p", "dim", "…"));
  item.append(box);
  const found = (await pack(Math.floor(entry.at / data.pack)))[entry.at % data.pack];
  box.replaceChildren(...details(entry, found));
}

function details(entry, found) {
  const facts = [data.outcomes[entry.outcome], entry.suite, entry.category, entry.lang].filter(Boolean).join(" · ");
  const missing = entry.outcome === "only" ? [make("p", "warn", `This case is only in ${onlyIn(entry)}.`)] : [];
  return [make("p", "dim", facts), ...missing, ...callTable(found), ...found.arms.flatMap((runs, arm) => armBlocks(runs, arm, found)),
    ...scoreTable(found)];
}
function callTable(found) {
  if (!found.calls.length) return [make("p", "dim", "No call was expected, and none was made.")];
  const chance = (value) => (value === null || value === undefined ? "" : make("span", "chance", `p ${value.toFixed(value < 0.1 ? 3 : 2)}`));
  const cell = (text, wrong, ...chances) => make("td", wrong ? "wrong" : "", text === null ? make("span", "absent", "absent") : text, chances.map(chance));
  const turns = found.users.length > 1;
  const rows = found.calls.flatMap((call) => call.rows.map((line) => {
    const differs = line.arms.length === 2 && line.arms[0] !== line.arms[1];
    const name = line.pointer === "" ? (turns ? `call in turn ${call.turn}` : "call") : line.pointer;
    return make("tr", `${line.pointer === "" ? "name " : ""}${differs ? "differs" : ""}`, make("td", "", name),
      cell(line.expected, false, ...line.chances.map((pair) => pair[1])),
      line.arms.map((text, arm) => cell(text, line.wrong[arm], line.chances[arm]?.[0])));
  }));
  const node = table(["", "expected", ...labels], rows);
  node.firstChild.classList.add("calls");
  const measured = found.calls.some((call) => call.rows.some((line) => line.chances.length));
  return [make("h3", "", "Calls side by side"), node, ...(measured ? [make("p", "dim", `p: probability of the value in the call that was made; under expected, of the expected value (${labels.join(", ")}).`)] : [])];
}
function armBlocks(runs, arm, found) {
  if (!runs.length) return [];
  return runs.map((run) => {
    const verdict = run.error ?? (run.outcome === "invalid" ? "invalid" : "solved");
    const title = `${labels[arm]}${runs.length > 1 ? `, trial ${run.trial + 1}` : ""}: `;
    const tone = run.error ? "bad" : run.outcome === "invalid" ? "warn" : "good";
    run.several = found.users.length > 1;
    const body = [findings(run), ...turns(run, found)];
    if (run.prompt) body.push(prompt(run));
    if (runs.length === 1) return make("section", "", make("h3", "", title, make("span", tone, verdict)), body);
    return make("details", "", make("summary", "", title, make("span", tone, verdict)), body);
  });
}
function findings(run) {
  const lines = run.findings.map((one) => make("li", "", make("strong", "", one.kind), one.pointer && [" ", make("code", "", one.pointer)],
    one.detail && `: ${one.detail}`, run.several && make("span", "dim", ` (turn ${one.turn})`)));
  if (run.problem) lines.push(make("li", "warn", run.problem));
  return lines.length ? make("ul", "findings", lines) : null;
}
function turns(run, found) {
  return found.users.flatMap((user, at) => {
    const answer = found.expected[at]?.answer ?? [];
    const steps = run.steps.filter((one) => one.turn === at).map(step);
    const wanted = answer.length ? make("p", "dim", "the answer must contain: ", make("code", "", answer.join(" · "))) : null;
    return [make("div", "user text", user), ...steps, ...(wanted ? [wanted] : [])];
  });
}
function step(one) {
  const raw = one.completion ?? one.texts.join("\n");
  const columns = [[make("small", "", `${one.completion === null ? "text of a structured reply" : "raw reply"}${one.finish === "length" ? ", cut off" : ""} · tokens: ${one.tokens}`), make("pre", "text", raw || " ")]];
  if (one.calls.length) columns.push([make("small", "", one.calls.length > 1 ? "parsed calls" : "parsed call"), ...one.calls.map((call) =>
    call.parse_error ? make("pre", "bad", `unreadable: ${call.parse_error}`) : make("pre", "text", `${call.name} ${json(call.arguments)}`))]);
  for (const exchange of one.exchanges) {
    const status = exchange.status ?? "no response";
    columns.push([make("small", "", `${exchange.url ? `${exchange.method} ${exchange.url}` : "not sent"}${exchange.fault ? ` · injected fault: ${exchange.fault}` : ""}`),
      exchange.url ? make("pre", "text", json(exchange.sent)) : null,
      make("small", exchange.is_error ? "bad" : "", `response: ${status}`), make("pre", "text", exchange.received)]);
  }
  return make("div", "step", columns.map((column) => make("div", "", column)));
}
function prompt(run) {
  const node = make("details", "", make("summary", "", "First prompt, with the tools"));
  node.addEventListener("toggle", () => { if (node.open && node.children.length === 1) node.append(make("pre", "text", run.prompt)); });
  return node;
}
function scoreTable(found) {
  const first = found.arms.map((runs) => runs.find((run) => run.error) ?? runs[0]);
  const names = [...new Set(first.flatMap((run) => Object.keys(run?.scores ?? {})))];
  if (!names.length) return [];
  const rows = names.map((name) => [name, ...first.map((run) => {
    const score = run?.scores[name];
    return make("td", "", score ? [score[0].toFixed(2).replace(/\.?0+$/, ""), make("span", "interval", score[1])] : "–");
  })]);
  return [make("details", "", make("summary", "", "Scores and reasons"), table(["metric", ...labels], rows))];
}

// Filters, keyboard, and the view in the address

function matches(entry) {
  return (!state.view || entry.outcome === state.view) && (!state.tool || entry.tools.includes(state.tool))
    && (!state.error || entry.errors.includes(state.error)) && (!state.category || entry.category === state.category)
    && (!state.lang || entry.lang === state.lang) && (!state.where || places.get(state.where)?.has(entry.id)) && (!state.q || entry.search.includes(state.q.toLowerCase()));
}
function update() {
  for (const [key, control] of Object.entries(controls)) if (document.activeElement !== control) control.value = state[key];
  for (const tab of document.querySelectorAll(".tabs button")) tab.setAttribute("aria-pressed", String(tab.dataset.view === state.view));
  shown = index.filter(matches);
  current = -1;
  byId("list").replaceChildren();
  more();
  byId("shown").replaceChildren(make("span", "dim", `${shown.length} of ${cases(index.length)}, regressions first; solved: success = 1. Marks: ${labels.join(", ")}. `),
    state.where ? button("", () => { state.where = ""; update(); }, `only ${state.where} ✕`) : "", " ",
    make("span", "dim keys", "Keys: j/k next and previous, Enter open, f next filter, / search."));
  const at = state.case ? shown.findIndex((entry) => entry.id === state.case) : -1;
  if (at >= 0) { select(at); toggle(item(at), shown[at], true); }
  keep();
}
function more(upTo = 0) {
  const list = byId("list"), from = list.children.length;
  const to = Math.min(shown.length, Math.max(upTo, from + FIRST_ROWS));
  const rows = document.createDocumentFragment();
  for (let at = from; at < to; at++) rows.append(row(shown[at], at));
  list.append(rows);
  byId("more").hidden = to >= shown.length;
  byId("more").textContent = `Show more: ${cases(shown.length - to)} left`;
}
function item(at) {
  if (at >= byId("list").children.length) more(at + 1);
  return byId("list").children[at];
}
function select(at) {
  if (!shown.length) return;
  byId("list").children[current]?.classList.remove("current");
  current = Math.max(0, Math.min(shown.length - 1, at));
  const node = item(current);
  node.classList.add("current");
  node.firstChild.focus({ preventScroll: true });
  node.scrollIntoView({ block: "nearest" });
}
function keep() {
  const entries = Object.entries(state).filter(([, value]) => value);
  history.replaceState(null, "", "#" + new URLSearchParams(entries).toString());
}
function read() {
  const found = new URLSearchParams(location.hash.slice(1));
  for (const key of Object.keys(state)) state[key] = found.get(key) ?? "";
}
function choose(changes) {
  for (const key of Object.keys(state)) state[key] = changes[key] ?? "";
  update();
  byId("cases").scrollIntoView();
  if (state.case && current >= 0) item(current).scrollIntoView();
}
function nextView() {
  const views = [...document.querySelectorAll(".tabs button")].map((tab) => tab.dataset.view);
  state.view = views[(views.indexOf(state.view) + 1) % views.length];
  state.case = "";
  update();
}
function keyboard(event) {
  const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
  if (event.key === "Escape" && typing) return event.target.blur();
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  const actions = { j: () => select(current + 1), k: () => select(current - 1), f: nextView, "/": () => controls.q.focus() };
  if (actions[event.key]) { event.preventDefault(); actions[event.key](); }
}
function buildFilters() {
  const tab = (view, title, count) => {
    const node = button("", () => { state.view = view; state.case = ""; update(); }, `${title} ${count}`);
    node.dataset.view = view;
    return node;
  };
  const views = Object.entries(data.counts).filter(([, count]) => count);
  const tabs = make("div", "tabs", tab("", "All", index.length), views.map(([view, count]) => tab(view, NAMES[view] ?? view, count)));
  const search = make("input");
  search.type = "search";
  search.placeholder = "Search requests and replies";
  search.setAttribute("aria-label", search.placeholder);
  controls.q = search;
  const choices = { tool: (entry) => entry.tools, error: (entry) => entry.errors, category: (entry) => [entry.category], lang: (entry) => [entry.lang] };
  const selects = Object.entries(choices).map(([key, values]) => {
    const node = make("select", "", make("option", "", `any ${FILTERS[key]}`));
    node.firstChild.value = "";
    for (const value of [...new Set(index.flatMap(values))].filter(Boolean).sort()) {
      const option = make("option", "", value);
      option.value = value;
      node.append(option);
    }
    node.setAttribute("aria-label", FILTERS[key]);
    controls[key] = node;
    return node;
  });
  for (const [key, control] of Object.entries(controls)) {
    control.addEventListener("input", () => { state[key] = control.value; state.case = ""; update(); });
  }
  byId("filters").append(tabs, search, ...selects);
}
async function start() {
  if (!("DecompressionStream" in window)) {
    byId("shown").textContent = "This browser is too old to show the cases; they are in cases.jsonl.";
    return;
  }
  index = await inflate("index");
  index.forEach((entry, at) => {
    entry.at = at;
    entry.search = [entry.id, entry.suite, entry.text, ...entry.tools, ...entry.errors].join("\n").toLowerCase();
  });
  buildFilters();
  read();
  update();
  byId("more").addEventListener("click", () => more());
  new IntersectionObserver((seen) => { if (seen[0].isIntersecting && shown.length) more(); }, { rootMargin: "600px" }).observe(byId("more"));
  addEventListener("hashchange", () => { read(); update(); });
  addEventListener("keydown", keyboard);
  document.body.dataset.ready = "yes";
}
addEventListener("DOMContentLoaded", start);
