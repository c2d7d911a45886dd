/* What all pages share: how text of a model, numbers, labels and curves are shown.
 *
 * All text of the data is hostile. It reaches the document in two ways only: as children of a template, which become
 * text nodes, and through textContent. No attribute but `title` and `aria-label` holds any of it.
 */
const common = (() => {
  "use strict";
  const { html } = htmPreact;
  const data = JSON.parse(document.getElementById("data").textContent);
  const { labels, curve, windows } = data;
  const element = (id) => document.getElementById(id);

  // ------------------------------------------------------------------ text

  // Controls, format characters, variation selectors and fillers that hide, reorder or forge text, and halves of
  // surrogate pairs. Line breaks and tabs are left to the layout; joiners and style marks inside an emoji belong to it.
  const PICTURE = String.raw`\p{Extended_Pictographic}`;
  const IN_EMOJI = String.raw`(?<=[${PICTURE}\p{Emoji_Modifier}\ufe0f])\u200d(?=${PICTURE})|(?<=\p{Emoji})\ufe0f`;
  const ACTING = String.raw`\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}\p{Variation_Selector}`;
  const FILLERS = "\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0";
  const HIDDEN = new RegExp(`(?!${IN_EMOJI})[${ACTING}${FILLERS}]`, "gu");

  const spelled = (character) => `U+${character.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`;

  const SIGNS = { "\n": ["\u21b5", "break"], "\t": ["\u21e5", "hidden"], " ": ["\u2423", "hidden"] };
  const sign = (character) => SIGNS[character] ?? [spelled(character), "hidden"];

  /** Text cut into [what is shown, class]: none for the text itself. On one line breaks are spelled too, and spaces
   * where there is nothing else. */
  function visible(text, oneLine) {
    if (oneLine && !/\S/u.test(text)) return [...text].map(sign);
    const pieces = [];
    let from = 0;
    for (const match of text.matchAll(HIDDEN)) {
      const character = match[0];
      if (!oneLine && (character === "\n" || character === "\t")) continue;
      if (match.index > from) pieces.push([text.slice(from, match.index)]);
      pieces.push(sign(character));
      from = match.index + character.length;
    }
    if (from < text.length) pieces.push([text.slice(from)]);
    return pieces;
  }

  const nodes = (pieces) => pieces.map(([piece, kind]) => (kind ? html`<span class=${kind}>${piece}</span>` : piece));
  const prose = (text) => nodes(visible(String(text), false));
  const line = (text) => nodes(visible(String(text), true));
  const plain = (text) => visible(String(text), true).map(([piece]) => piece).join(""); // for attributes
  /** Part of a text, counted in whole characters: half a surrogate pair would show as one that is hidden. */
  const part = (text, from, to) => [...text].slice(from, to).join("");
  const clipped = (text, length) => (text.length > length ? `${part(text, 0, length).trimEnd()} \u2026` : text);
  /** What a model said: set in its own direction and language; a token may have no text at all. */
  const Said = ({ text }) => html`<bdi class="said" lang="">${text ? line(text) : nodes([["\u2205", "hidden"]])}</bdi>`;

  // ------------------------------------------------------------------ numbers

  /** A probability; 0 and 1 only where that is exact. */
  function prob(x) {
    if (x === null || x === undefined) return "\u2013";
    if (x === 0 || x === 1) return String(x);
    if (x < 0.01) return "<0.01";
    return x > 0.99 ? ">0.99" : x.toFixed(2);
  }
  const small = (x) => String(Number(x.toPrecision(2)));
  const tokenProb = (x) => (x !== null && x > 0 && x < 0.01 ? small(x) : prob(x));
  const whole = (n) => Math.round(n).toLocaleString("en");
  const percent = (x) => `${(100 * x).toFixed(x < 0.01 && x > 0 ? 1 : 0)} %`;
  const count = (n, what) => `${whole(n)} ${what}${n === 1 ? "" : "s"}`;

  // ------------------------------------------------------------------ labels

  const RESERVED = ["(other)", "(unparsed)", "(truncated)"];
  const finalLabel = labels.indexOf(data.final_label);
  const inOrder = labels.map((_, k) => k).filter((k) => !RESERVED.includes(labels[k]));
  // The generation's own label comes first; six hues, then the same six dashed; greys for what is no answer.
  inOrder.sort((a, b) => (b === finalLabel) - (a === finalLabel) || a - b);
  const reserved = (k) => RESERVED.indexOf(labels[k] ?? "(other)");
  const slot = (k) => (reserved(k) >= 0 ? `r${reserved(k)}` : String(inOrder.indexOf(k) % 12));
  const labelName = (k) => labels[k] ?? "(other)";
  const dash = (k) => (slot(k) === "r2" ? [2, 3] : slot(k) === "r1" || Number(slot(k)) >= 6 ? [8, 4] : []);
  /** The labels of a law worth naming, the most probable first, as [label, probability]. */
  const ranked = (law) => law.map((p, k) => [k, p]).sort((a, b) => b[1] - a[1]).filter(([, p]) => p >= 0.005);

  const Label = ({ k }) => html`<span class=${`label label-${slot(k)}`}><${Said} text=${labelName(k)} /></span>`;

  /** Shares of the labels as one bar. `shares` holds [label, share]; the shares may sum to less than 1. */
  const Bar = ({ shares, name }) => html`<span class="bar" role="img" aria-label=${name}>
    ${shares
      .filter(([, share]) => share > 0)
      .map(([k, share]) => html`<i class=${`label-${slot(k)}`} style=${{ width: `${100 * share}%` }}></i>`)}
  </span>`;

  function Law({ row }) {
    const law = curve.mean[row];
    const words = ranked(law).map(([k, p]) => `${plain(labelName(k))} ${prob(p)}`);
    return html`<${Bar} shares=${law.map((p, k) => [k, p])} name=${words.join(", ")} />`;
  }

  // ------------------------------------------------------------------ settings, accuracy

  const STATUS = {
    budget: "The budget ended before what was asked for was known.",
    interrupted: "These are the draws so far; locate goes on from them.",
  };

  const OFF = { top_k: 0, top_p: 1, min_p: 0 };

  /** A setting in words; filters that are switched off are left out. */
  function inWords(value) {
    if (Array.isArray(value)) return value.map(inWords).join(", ");
    if (value === null || typeof value !== "object") return String(value);
    const on = ([name, entry]) => entry !== OFF[name] && entry !== null && entry.length !== 0;
    const words = ([name, entry]) => `${name.replaceAll("_", " ")} ${inWords(entry)}`;
    return Object.entries(value).filter(on).map(words).join(", ");
  }

  const Fact = ({ name, value, why }) => html`<div>
    <dt>${line(name)}</dt>
    <dd>${line(value)}${why && html`<p class="small">${why}</p>`}</dd>
  </div>`;

  const Facts = ({ title, facts }) => html`<div>
    <h3>${title}</h3>
    <dl>${facts.map(([name, value, why]) => html`<${Fact} name=${name} value=${value} why=${why} />`)}</dl>
  </div>`;

  const Notes = () => html`<div>
    <h3>Notes</h3>
    <ul class="notes">${data.notes.map((note) => html`<li>${line(note)}</li>`)}</ul>
  </div>`;

  function time() {
    const { seconds, model_seconds: inModel } = data.timing;
    return seconds > 0 ? [["Time", `${small(seconds)} s`, `${percent(inModel / seconds)} of it in the model.`]] : [];
  }

  /** How it was measured; the time, which all pages have, comes last among the costs. */
  const Numbers = ({ accuracy, cost, settings }) => html`<section aria-labelledby="numbers-title">
    <h2 id="numbers-title">How it was measured</h2>
    <div class="facts-grid">
      <${Facts} title="Accuracy" facts=${accuracy} />
      <${Facts} title="Cost" facts=${[...cost, ...time()]} />
      <${Facts} title="Settings" facts=${settings} />
    </div>
    ${data.notes.length > 0 && html`<${Notes} />`}
  </section>`;

  // ------------------------------------------------------------------ the plot of a curve

  const root = getComputedStyle(document.documentElement); // live: follows the colour scheme
  const colour = (name) => root.getPropertyValue(name).trim();

  function series(everyRow) {
    const list = [{}];
    const columns = [curve.position];
    const bands = [];
    const of = labels.map(() => []); // numbers of the series of each label, the mean first
    const add = (k, rows, options) => {
      of[k].push(list.length);
      columns.push(rows.map((row) => row[k]));
      list.push({ points: { show: false }, ...options });
    };
    for (let k = 0; k < labels.length; k++) {
      const stroke = () => colour(`--label-${slot(k)}`);
      const points = { show: !everyRow, size: 6, fill: stroke };
      add(k, curve.mean, { stroke, width: k === finalLabel ? 2.5 : 1.5, dash: dash(k), points });
      add(k, curve.high, {});
      add(k, curve.low, {});
      bands.push({ series: [of[k][1], of[k][2]], fill: () => `${stroke()}2e` });
      if (data.truth) add(k, data.truth.mean, { stroke, width: 1.25, dash: [1.5, 3] });
    }
    return { list, columns, bands, of };
  }

  function axes() {
    const axis = { stroke: () => colour("--soft"), font: `12px ${colour("--sans")}`, ticks: { show: false } };
    const grid = { stroke: () => colour("--hairline"), width: 1 };
    const inSteps = (_, splits) => splits.map((x) => (Number.isInteger(x) ? whole(x) : ""));
    return [
      { ...axis, grid: { show: false }, size: 26, gap: 4, values: inSteps },
      { ...axis, grid, size: 38, splits: () => [0, 0.25, 0.5, 0.75, 1], values: () => ["0", "", "0.5", "", "1"] },
    ];
  }

  function tintWindows(u) {
    const { ctx, bbox } = u;
    ctx.save();
    ctx.font = `${11 * devicePixelRatio}px ${colour("--sans")}`;
    ctx.textAlign = "center";
    windows.forEach((window, n) => {
      const left = Math.max(bbox.left, u.valToPos(window.start, "x", true));
      const right = Math.min(bbox.left + bbox.width, u.valToPos(window.end, "x", true));
      if (right < left) return; // zoomed away
      const width = Math.max(2 * devicePixelRatio, right - left);
      ctx.fillStyle = colour("--window");
      ctx.fillRect(left, bbox.top, width, bbox.height);
      ctx.fillStyle = colour("--ink");
      ctx.fillText(String(n + 1), left + width / 2, bbox.top - 4 * devicePixelRatio);
    });
    ctx.restore();
  }

  /** The curve in the element `plot`, as large as it is and in its colours; `more` gives options beyond these. */
  function drawCurve({ list, columns, bands }, { hooks = {}, ...more }) {
    const host = element("plot");
    const size = () => ({ width: host.clientWidth, height: host.clientHeight });
    const u = new uPlot({
      ...size(),
      padding: [18, 18, 0, 0],
      legend: { show: false },
      scales: { x: { time: false }, y: { range: [-0.02, 1.02] } },
      axes: axes(),
      series: list,
      bands,
      ...more,
      hooks: { drawClear: [tintWindows], ...hooks },
    }, columns, host);
    new ResizeObserver(() => u.setSize(size())).observe(host);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => u.redraw(false));
    return u;
  }

  return {
    data, labels, curve, windows, element, finalLabel, slot, dash, labelName, ranked, colour,
    prose, line, plain, part, clipped, prob, small, tokenProb, whole, percent, count, inWords,
    Said, Label, Bar, Law, STATUS, Numbers, series, drawCurve,
  };
})();
