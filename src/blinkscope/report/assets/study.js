/* The page of a study: what it found, its charts, tables that sort and filter, and the texts with their windows. */
(() => {
  "use strict";
  const { html, render, useState } = htmPreact;
  const { data, element, prose, line, plain, clipped, prob, whole, count } = common;
  const { comparison } = data;
  const HUES = 6;

  // ------------------------------------------------------------------ charts

  const WIDTH = 440, HEIGHT = 250, LEFT = 54, RIGHT = 12, TOP = 26, BOTTOM = 40;
  const inkOf = (one) => (one.colour === null ? "var(--ink)" : `var(--chart-${one.colour % HUES})`);
  const finite = (list) => list.filter((x) => x !== null && x !== undefined);

  /** About five round numbers from low to high. */
  function steps(low, high, whole) {
    const raw = (high - low) / 5 || 1;
    const power = 10 ** Math.floor(Math.log10(raw));
    const size = Math.max([1, 2, 5, 10].map((k) => k * power).find((s) => s >= raw * 0.999), whole ? 1 : 0);
    const found = [];
    for (let x = Math.ceil(low / size - 1e-9) * size; x <= high + 1e-9 * size; x += size) found.push(Number(x.toFixed(10)));
    return found;
  }

  function scales(chart) {
    const scaled = chart.doubling ? Math.log2 : (value) => value;
    const xs = [...chart.lines.flatMap((one) => one.x), ...chart.spans.flatMap(([a, b]) => [a, b]), ...chart.ticks.map(([x]) => x)].map(scaled);
    const bars = chart.bars.length > 0;
    const [low, high] = bars ? [0, 1] : xs.length ? [Math.min(...xs), Math.max(...xs)] : [0, 1];
    const room = bars || high === low ? 0 : (high - low) * 0.02;
    const edge = chart.ticks.length && chart.lines.some((one) => one.kind === "points") ? (high - low) / Math.max(2, 2 * (chart.ticks.length - 1)) : room;
    const top = chart.probability ? 1 : Math.max(1, ...chart.bars.map(([, h]) => h), ...chart.lines.flatMap((one) => finite([...one.y, ...one.high])));
    const from = low - (high === low && !bars ? 0.5 : edge), to = high + (high === low && !bars ? 0.5 : edge);
    return {
      x: (value) => LEFT + ((scaled(value) - from) / (to - from)) * (WIDTH - LEFT - RIGHT),
      y: (value) => HEIGHT - BOTTOM - (value / top) * (HEIGHT - TOP - BOTTOM),
      xTicks: chart.ticks.length ? chart.ticks : steps(low, high, chart.doubling).map((v) => (chart.doubling ? [2 ** v, String(2 ** v)] : [v, String(v)])),
      yTicks: chart.probability ? [0, 0.25, 0.5, 0.75, 1] : steps(0, top, true),
    };
  }

  const path = (points) => points.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");
  const DASHES = { dashed: "5 3" };
  const STROKE = { line: 2, plain: 2.2, dashed: 1.6, bright: 1.3, faint: 1, points: 1.2 };

  function Curve({ one, x, y }) {
    const points = one.x.map((at, i) => [x(at), y(one.y[i])]);
    const limits = one.low.map((low, i) => [x(one.x[i]), y(low ?? one.y[i]), y(one.high[i] ?? one.y[i])]);
    const stroke = inkOf(one);
    const dots = one.kind === "line" || one.kind === "points";
    return html`<g class=${one.kind === "faint" ? "faint" : ""}>
      ${limits.length > 0 && one.kind !== "points" && html`<path class="band" fill=${stroke}
        d=${`${path([...limits.map(([a, , high]) => [a, high]), ...limits.map(([a, low]) => [a, low]).reverse()])}Z`} />`}
      ${one.kind === "points" && limits.map(([a, low, high]) => html`<line x1=${a} x2=${a} y1=${low} y2=${high} stroke=${stroke} stroke-width="1.6" />`)}
      ${one.kind !== "points" && html`<path d=${path(points)} fill="none" stroke=${stroke} stroke-width=${STROKE[one.kind]} stroke-dasharray=${DASHES[one.kind] ?? ""} stroke-linejoin="round" />`}
      ${dots && points.map(([a, b], i) => html`<circle cx=${a} cy=${b} r="3" fill=${stroke}>
        <title>${plain(one.name)} ${one.x[i]}: ${prob(one.y[i])}${limits[i] && one.low[i] !== null ? ` (${prob(one.low[i])}\u2013${prob(one.high[i])})` : ""}</title></circle>`)}
    </g>`;
  }

  const Tick = ({ at, name, aslant }) => {
    const lines = String(name).split("\n");
    return html`<text x=${at} y=${HEIGHT - BOTTOM + 16} text-anchor=${aslant ? "end" : "middle"}
      transform=${aslant ? `rotate(-30 ${at} ${HEIGHT - BOTTOM + 12})` : ""}>
      ${lines.map((part, i) => html`<tspan x=${at} dy=${i ? 14 : 0}>${line(clipped(part, 18))}</tspan>`)}
    </text>`;
  };

  const Key = ({ one }) => html`<li>
    <svg viewBox="0 0 24 12" aria-hidden="true"><line x1="0" x2="24" y1="6" y2="6" stroke=${inkOf(one)}
      stroke-width=${STROKE[one.kind] + 0.4} stroke-dasharray=${DASHES[one.kind] ?? ""} opacity=${one.kind === "faint" ? 0.4 : 1} /></svg>
    <span>${line(clipped(one.name, 40))}</span>
  </li>`;

  function Chart({ chart }) {
    const { x, y, xTicks, yTicks } = scales(chart);
    const aslant = chart.ticks.length > 4;
    const more = aslant ? 34 : chart.ticks.some(([, name]) => name.includes("\n")) ? 14 : 0;
    const named = chart.lines.filter((one) => one.name);
    const words = [chart.title, `${chart.y} against ${chart.x}`].filter(Boolean).map(plain).join(": ");
    return html`<figure class="chart">
      <svg viewBox=${`0 0 ${WIDTH} ${HEIGHT + more}`} role="img" aria-label=${words}>
        ${chart.spans.map(([from, to, name]) => html`<g>
          <rect class="span" x=${x(from)} width=${Math.max(2, x(to) - x(from))} y=${TOP} height=${HEIGHT - TOP - BOTTOM} />
          <text class="name" x=${(x(from) + x(to)) / 2} y=${TOP - 6} text-anchor="middle">${line(clipped(name, 16))}</text>
        </g>`)}
        ${chart.title && html`<text class="title" x=${LEFT} y="14">${line(clipped(chart.title, 48))}</text>`}
        ${yTicks.map((v) => html`<g><line class="grid" x1=${LEFT} x2=${WIDTH - RIGHT} y1=${y(v)} y2=${y(v)} />
          <text x=${LEFT - 6} y=${y(v) + 4} text-anchor="end">${v}</text></g>`)}
        <line class="axis" x1=${LEFT} x2=${WIDTH - RIGHT} y1=${HEIGHT - BOTTOM} y2=${HEIGHT - BOTTOM} />
        ${xTicks.map(([v, name]) => html`<${Tick} at=${x(v)} name=${name} aslant=${aslant} />`)}
        ${chart.bars.map(([at, height]) => html`<rect x=${x(at - 0.0425)} width=${x(0.085) - x(0)} y=${y(height)}
          height=${y(0) - y(height)} fill="var(--chart-0)"><title>${height}</title></rect>`)}
        ${chart.lines.filter((one) => one.x.length).map((one) => html`<${Curve} one=${one} x=${x} y=${y} />`)}
        ${chart.marks.map(([at, height, words]) => html`<text class="name" x=${x(at)} y=${y(height) - 9} text-anchor="middle">${line(words)}</text>`)}
        <text x=${(LEFT + WIDTH - RIGHT) / 2} y=${HEIGHT + more - 6} text-anchor="middle">${line(chart.x)}</text>
        <text x="12" y=${(TOP + HEIGHT - BOTTOM) / 2} text-anchor="middle"
          transform=${`rotate(-90 12 ${(TOP + HEIGHT - BOTTOM) / 2})`}>${line(chart.y)}</text>
      </svg>
      ${named.length > 0 && html`<ul class="keys">${named.map((one) => html`<${Key} one=${one} />`)}</ul>`}
    </figure>`;
  }

  const Charts = ({ rows }) => rows.map((row) => html`<div class="charts">${row.map((chart) => html`<${Chart} chart=${chart} />`)}</div>`);

  const Hierarchy = () => data.tree && html`<section aria-labelledby="tree-title">
    <h2 id="tree-title">Tree of the labels</h2>
    <${trees.Tree} tree=${data.tree} />
    <p class="small">The eps-mixture tree. A bar stands where the labels that meet in it are still merged; from its dot
      on a label, or a set of them, stands apart from all others. The dot of a single label may stand anywhere from the
      end of its window on, and is put halfway; how sure these ends are, their intervals in the table of windows tell.</p>
  </section>`;

  // ------------------------------------------------------------------ tables

  const SHOWN = 100;

  function shown(value) {
    if (value === null) return "";
    if (typeof value === "number") return Number.isInteger(value) ? whole(value) : value.toFixed(3);
    return typeof value === "boolean" ? (value ? "yes" : "no") : line(clipped(value, 200));
  }

  /** Nothing last, numbers by size, the rest as text. */
  function order(a, b) {
    if (a === null || b === null) return (a === null) - (b === null);
    return typeof a === "string" || typeof b === "string" ? String(a).localeCompare(String(b), "en", { numeric: true }) : a - b;
  }

  const Interval = ({ low = null, high = null }) =>
    (low !== null || high !== null) && html`<span class="interval">[${shown(low) || "-"}, ${shown(high) || "-"}]</span>`;

  function Table({ table }) {
    const { columns, rows } = table;
    const [by, setBy] = useState(-1); // column, and the sign of the order
    const [sign, setSign] = useState(1);
    const [words, setWords] = useState("");
    const [all, setAll] = useState(false);
    // The limits of a number stand in its cell, not in columns of their own.
    const limits = columns.map((name) => [columns.indexOf(`${name}_low`), columns.indexOf(`${name}_high`)]);
    const inCell = new Set(limits.filter(([low, high]) => low >= 0 && high >= 0).flat());
    const seen = columns.map((_, k) => k).filter((k) => !inCell.has(k));
    const numeric = columns.map((_, k) => rows.every((row) => row[k] === null || typeof row[k] === "number"));
    const wanted = words.toLowerCase().split(/\s+/u).filter(Boolean);
    const says = (row) => row.map((cell, k) => `${columns[k]}=${typeof cell === "boolean" ? (cell ? "yes" : "no") : cell}`).join("\n").toLowerCase();
    const found = wanted.length ? rows.filter((row) => wanted.every((word) => says(row).includes(word))) : [...rows];
    if (by >= 0) found.sort((a, b) => (a[by] === null || b[by] === null ? order(a[by], b[by]) : sign * order(a[by], b[by])));
    const press = (k) => () => { setSign(by === k ? -sign : 1); setBy(k); };
    const listed = all ? found : found.slice(0, SHOWN);
    const sorted = (k) => (by !== k ? "none" : sign > 0 ? "ascending" : "descending");
    const arrow = (k) => (by !== k ? "" : sign > 0 ? " \u2191" : " \u2193");
    return html`<div>
      <p class="filters">
        <input type="search" placeholder="filter: words, or column=value" aria-label=${`Filter the table ${plain(table.name)}`}
          value=${words} onInput=${(event) => setWords(event.currentTarget.value)} />
        <span role="status">${found.length === rows.length ? count(rows.length, "row") : `${whole(found.length)} of ${count(rows.length, "row")}`}</span>
        ${table.left_out > 0 && html`<span>${whole(table.left_out)} more are left out of the page.</span>`}
      </p>
      <div class="scroll" tabindex="0" role="region" aria-label=${`Table ${plain(table.name)}`}>
        <table class="sheet">
          <thead><tr>${seen.map((k) => html`<th scope="col" class=${numeric[k] ? "number" : ""} aria-sort=${sorted(k)}>
            <button type="button" onClick=${press(k)}>${line(columns[k].replaceAll("_", " "))}${arrow(k)}</button></th>`)}</tr></thead>
          <tbody>${listed.map((row) => html`<tr>${seen.map((k) => html`<td class=${numeric[k] ? "number" : ""}>
            ${shown(row[k])}<${Interval} low=${row[limits[k][0]]} high=${row[limits[k][1]]} /></td>`)}</tr>`)}</tbody>
        </table>
      </div>
      ${table.legends.map((said) => html`<p class="small">${line(said)}</p>`)}
      ${listed.length < found.length && html`<button type="button" class="plain more" onClick=${() => setAll(true)}>show all ${whole(found.length)} rows</button>`}
    </div>`;
  }

  const Tables = () => {
    const [first, ...rest] = data.tables;
    return first && html`<section aria-labelledby="tables-title">
      <h2 id="tables-title">Tables</h2>
      <h3 class="fold">${line(first.name)}</h3><${Table} table=${first} />
      ${rest.map((table) => html`<details class="fold"><summary>${line(table.name)} (${count(table.rows.length, "row")})</summary>
        <${Table} table=${table} /></details>`)}
    </section>`;
  };

  // ------------------------------------------------------------------ texts

  const shading = (x) => ({ "--moved": `${(100 * Math.min(1, x) ** 0.7).toFixed(1)}%` });

  function Piece({ piece, begins }) {
    const { text, moved, window, given } = piece;
    const kinds = [moved > 0 && "moved", window > 0 && "in-window", given && "given"].filter(Boolean).join(" ");
    const title = moved > 0 ? `the outcome moved by ${prob(moved)}` : given ? "given to the model" : undefined;
    return html`<span class=${kinds} style=${moved > 0 ? shading(moved) : undefined} title=${title}>${begins && html`<sup>${window}</sup>`}${window > 0 && !/\S/u.test(text) && line(text)}${prose(text)}</span>`;
  }

  const Text = ({ text }) => html`<li>
    <p class="about"><b>${line(text.item)}</b><span>label <b>${line(clipped(text.label, 60))}</b></span>
      ${text.note && html`<span>${line(text.note)}</span>`}</p>
    ${text.prompt && html`<p class="said asked" dir="auto" lang="">${prose(text.prompt)}</p>`}
    <p class="said" dir="auto" lang="">${text.pieces.map((piece, i) => html`<${Piece} piece=${piece}
      begins=${piece.window > 0 && piece.window !== text.pieces[i - 1]?.window} />`)}</p>
  </li>`;

  const FIRST = 25;
  const ORDERS = {
    "as they were asked": () => 0,
    "largest movement first": (a, b) => b.most - a.most,
    "longest first": (a, b) => b.length - a.length,
    "by label": (a, b) => order(a.label, b.label),
  };

  const texts = data.texts.map((text) => ({
    ...text,
    most: Math.max(0, ...text.pieces.map((piece) => piece.moved)),
    length: text.pieces.reduce((sum, piece) => sum + piece.text.length, 0),
    windows: new Set(text.pieces.map((piece) => piece.window).filter(Boolean)).size,
    says: [text.item, text.label, text.prompt, text.note, ...text.pieces.map((piece) => piece.text)].join("\n").toLowerCase(),
  }));

  function Texts() {
    const [words, setWords] = useState("");
    const [kind, setKind] = useState("all");
    const [ordered, setOrdered] = useState(Object.keys(ORDERS)[0]);
    const [most, setMost] = useState(FIRST);
    if (texts.length === 0) return null;
    const inWindows = texts.some((text) => text.windows > 0);
    const kinds = { all: () => true, "with a window": (text) => text.windows > 0, "without a window": (text) => text.windows === 0 };
    const found = texts.filter((text) => kinds[kind](text) && text.says.includes(words.toLowerCase())).sort(ORDERS[ordered]);
    const choose = (set) => (event) => { set(event.currentTarget.value); setMost(FIRST); };
    return html`<section aria-labelledby="texts-title">
      <h2 id="texts-title">Texts</h2>
      <p class="filters">
        <input type="search" placeholder="text, item or label" aria-label="Filter the texts" value=${words} onInput=${choose(setWords)} />
        ${inWindows && html`<select aria-label="Which texts" value=${kind} onChange=${choose(setKind)}>
          ${Object.keys(kinds).map((name) => html`<option value=${name}>${name}</option>`)}</select>`}
        <select aria-label="Order of the texts" value=${ordered} onChange=${choose(setOrdered)}>
          ${Object.keys(ORDERS).map((name) => html`<option value=${name}>${name}</option>`)}</select>
        <span role="status">${found.length === texts.length ? count(texts.length, "text") : `${whole(found.length)} of ${count(texts.length, "text")}`}</span>
      </p>
      ${inWindows && html`<p class="small">Underlined and numbered: the windows. The stronger a word is shaded, the more the outcome moved at it.</p>`}
      ${data.texts_left_out > 0 && html`<p class="small">${count(data.texts_left_out, "text")} left out to keep the page small.</p>`}
      <ul class="texts">${found.slice(0, most).map((text) => html`<${Text} key=${`${text.item} ${text.note} ${texts.indexOf(text)}`} text=${text} />`)}</ul>
      ${found.length > most && html`<button type="button" class="plain more" onClick=${() => setMost(most + 100)}>show more</button>`}
    </section>`;
  }

  // ------------------------------------------------------------------ the whole

  const Top = () => html`<header>
    <p class="small kicker">blinkscope</p>
    <h1>study ${line(data.study)}</h1>
    <ul class="notes">${data.sentences.map((said) => html`<li>${line(said)}</li>`)}</ul>
    ${data.standing && html`<p class="notice">${line(data.standing)}</p>`}
    <p class="small facts">
      <span>${line(data.settings["asking.model"] ?? "")}</span><span>${count(data.items, "item")}</span>
      ${Object.entries(data.cost).map(([name, n]) => html`<span>${whole(n)} ${name.replaceAll("_", " ")}</span>`)}
    </p>
  </header>`;

  const Failed = () => data.failed.length > 0 && html`<section aria-labelledby="failed-title">
    <h2 id="failed-title">Items that failed (${whole(data.failed.length)})</h2>
    <ul class="notes">${data.failed.map(({ item, kind, reason }) => html`<li>${line(item)} (${line(kind)}): ${line(reason)}</li>`)}</ul>
  </section>`;

  const Compared = () => comparison && html`<section aria-labelledby="compared-title">
    <h2 id="compared-title">Against ${line(comparison.models[1])}</h2>
    <p class="small">First: this run, ${line(comparison.models[0])}. Second: the other one. Differences are second less first over
      ${" "}${count(comparison.shared, "question")} that both were asked, with ${Math.round(100 * comparison.level)} % intervals over questions.</p>
    <${Table} table=${comparison.table} />
    ${comparison.differing.length > 0 && html`<details class="fold"><summary>Settings that differ</summary>
      <ul class="notes">${comparison.differing.map((said) => html`<li>${line(said)}</li>`)}</ul></details>`}
    <h3 class="fold">The other run</h3><${Charts} rows=${comparison.charts} />
  </section>`;

  const Settings = () => html`<details class="howto"><summary>Settings</summary>
    <dl>${Object.entries(data.settings).map(([name, value]) => html`<div><dt>${line(name.replaceAll("_", " "))}</dt><dd>${prose(value)}</dd></div>`)}</dl>
  </details>`;

  const Page = () => html`<${Top} />
    ${data.charts.length > 0 && html`<section aria-labelledby="charts-title"><h2 id="charts-title">Curves</h2><${Charts} rows=${data.charts} /></section>`}
    <${Hierarchy} /><${Compared} /><${Tables} /><${Texts} /><${Failed} /><${Settings} />
    <footer class="small">Written by blinkscope. This file holds all it shows and fetches nothing.</footer>`;

  document.title = `study ${plain(data.study)} \u00b7 blinkscope`;
  render(html`<${Page} />`, element("report"));
})();
