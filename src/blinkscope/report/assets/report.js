/* The page of one generation.
 *
 * The text, the plot and the panel of forks show the same thing and follow each other: `look(i)` points all of them at
 * token i, `open(i)` shows its forks. The text is rendered once; pointing at a token changes classes on two elements.
 *
 * All text of the data is hostile. It reaches the document in two ways only: as children of a template, which become
 * text nodes, and through textContent. No attribute but `title` and `aria-label` holds any of it.
 */
(() => {
  "use strict";
  const { html, render, useState } = htmPreact;
  const data = JSON.parse(document.getElementById("data").textContent);
  const { labels, curve, windows, change } = data;
  const tokens = data.generation.tokens;
  const element = (id) => document.getElementById(id);

  // ------------------------------------------------------------------ text

  // Controls, format characters, variation selectors and fillers that hide, reorder or forge text, and halves of
  // surrogate pairs. Line breaks and tabs are left to the layout; joiners and style marks inside an emoji belong to it.
  const IN_EMOJI = String.raw`(?<=[\p{Extended_Pictographic}\p{Emoji_Modifier}\ufe0f])\u200d(?=\p{Extended_Pictographic})|(?<=\p{Emoji})\ufe0f`;
  const HIDDEN = new RegExp(String.raw`(?!${IN_EMOJI})[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}\p{Variation_Selector}\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0]`, "gu");

  const spelled = (character) => `U+${character.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`;

  /** Text cut into [what is shown, class]: none for the text itself. On one line, breaks are spelled too. */
  function visible(text, oneLine) {
    const pieces = [];
    let from = 0;
    for (const match of text.matchAll(HIDDEN)) {
      const character = match[0];
      if (!oneLine && (character === "\n" || character === "\t")) continue;
      if (match.index > from) pieces.push([text.slice(from, match.index)]);
      if (character === "\n") pieces.push(["\u21b5", "break"]);
      else pieces.push([character === "\t" ? "\u21e5" : spelled(character), "hidden"]);
      from = match.index + character.length;
    }
    if (from < text.length) pieces.push([text.slice(from)]);
    return pieces;
  }

  const nodes = (pieces) => pieces.map(([piece, kind]) => (kind ? html`<span class=${kind}>${piece}</span>` : piece));
  const prose = (text) => nodes(visible(String(text), false));
  const line = (text) => nodes(visible(String(text), true));
  const plain = (text) => visible(String(text), true).map(([piece]) => piece).join("");
  const clipped = (text, length) => (text.length > length ? `${text.slice(0, length).trimEnd()} \u2026` : text);
  /** What a model said: set in its own direction and language. */
  const Said = ({ text }) => html`<bdi class="said" lang="">${line(text)}</bdi>`;

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

  // ------------------------------------------------------------------ the curve by token

  // A method may have looked at some rows only. Token i lies between rows before[i] and before[i] + 1.
  const before = [];
  for (let row = 0; row + 1 < curve.position.length; row++) {
    for (let i = curve.position[row]; i < curve.position[row + 1]; i++) before[i] = row;
  }
  const everyToken = curve.position.length === tokens.length + 1;
  const moved = (i) => change[before[i]] ?? 0;
  const forksAt = new Map();
  for (const fork of data.continuations) {
    if (!forksAt.has(fork.position)) forksAt.set(fork.position, []);
    forksAt.get(fork.position).push(fork);
  }

  // ------------------------------------------------------------------ labels

  const RESERVED = ["(other)", "(unparsed)", "(truncated)"];
  const finalLabel = labels.indexOf(data.final_label);
  const inOrder = labels.map((_, k) => k).filter((k) => !RESERVED.includes(labels[k]));
  // The generation's own label comes first; six hues, then the same six dashed; greys for what is no answer.
  inOrder.sort((a, b) => (b === finalLabel) - (a === finalLabel) || a - b);
  const slots = labels.map((name, k) => (RESERVED.includes(name) ? `r${RESERVED.indexOf(name)}` : String(inOrder.indexOf(k) % 12)));
  const slot = (k) => slots[k] ?? "r0";
  const labelName = (k) => labels[k] ?? "(other)";
  const dash = (k) => (slot(k) === "r2" ? [2, 3] : slot(k) === "r1" || Number(slot(k)) >= 6 ? [8, 4] : []);
  const byWeight = (law) => law.map((p, k) => [k, p]).sort((a, b) => b[1] - a[1]);

  const Label = ({ k }) => html`<span class=${`label label-${slot(k)}`}><${Said} text=${labelName(k)} /></span>`;

  /** Shares of the labels as one bar. `shares` holds [label, share]; the shares may sum to less than 1. */
  const Bar = ({ shares, name }) => html`<span class="bar" role="img" aria-label=${name}>
    ${shares.filter(([, share]) => share > 0).map(([k, share]) => html`<i class=${`label-${slot(k)}`} style=${{ width: `${100 * share}%` }}></i>`)}
  </span>`;

  const lawInWords = (law) => byWeight(law).filter(([, p]) => p >= 0.005).map(([k, p]) => `${plain(labelName(k))} ${prob(p)}`).join(", ");
  const Law = ({ row }) => html`<${Bar} shares=${curve.mean[row].map((p, k) => [k, p])} name=${lawInWords(curve.mean[row])} />`;

  // ------------------------------------------------------------------ the top of the page

  function Prompt() {
    const { prompt, system, prefill } = data.settings;
    const said = Array.isArray(prompt) ? prompt : [{ role: "user", content: prompt ?? "" }];
    const turns = [system && { role: "system", content: system }, ...said, prefill && { role: "assistant", content: prefill }].filter(Boolean);
    if (turns.length === 1 && String(turns[0].content).length <= 320) return null;
    return html`<details class="prompt"><summary>The whole prompt</summary>
      ${turns.map((turn) => html`<div class="turn"><p class="small">${line(turn.role)}</p><p class="said" dir="auto" lang="">${prose(turn.content)}</p></div>`)}
    </details>`;
  }

  const STATUS = {
    budget: "The budget ended before the asked-for error was reached.",
    interrupted: "The run was interrupted; this is what had been drawn by then.",
  };

  const Top = () => html`<header>
    <p class="small kicker">blinkscope</p>
    <h1 class=${data.question.length > 160 ? "said long" : "said"} dir="auto" lang="">${line(clipped(data.question || "A generation", 320))}</h1>
    <p class="lead">${line(data.answer)} ${line(data.finding)}</p>
    ${STATUS[data.status] && html`<p class="notice">${STATUS[data.status]}</p>`}
    <p class="small facts"><span>${line(data.settings.model ?? "")}</span> <span>${count(tokens.length, "token")}</span> <span>${count(data.cost.continuations, "continuation")}</span> <span>error ${small(data.error.reached_max)}</span></p>
    <${Prompt} />
  </header>`;

  // ------------------------------------------------------------------ instrument, text, panel

  const Legend = () => html`<div class="legend" role="group" aria-label="Labels; press one to hide or show its curve">
    ${labels.map((name, k) => html`<button type="button" class=${`key label-${slot(k)}`} data-label=${k} aria-pressed="true" title=${plain(name)}>
      <i class="stroke"></i><span class=${k === finalLabel ? "name final" : "name"}>${line(name)}</span>${k === finalLabel && html`<span class="unseen">, the answer</span>`}<span class="value"></span></button>`)}
  </div>`;

  const Instrument = () => html`<section class="instrument" id="instrument" aria-label="Probability of every label, by tokens kept">
    <div id="plot" class="plot" role="img" aria-label="Curves with bands. The same numbers are read out for each token of the generation below."></div>
    <button type="button" id="reset" class="plain" hidden>whole curve</button>
    <${Legend} />
    <p id="readout" class="readout" aria-hidden="true"></p>
    <p id="live" class="unseen" role="status" aria-live="polite"></p>
  </section>`;

  // A little movement should show without a lot of it saturating.
  const shade = (x) => Math.min(1, x) ** 0.7;

  function Token({ i }) {
    const { text } = tokens[i];
    // The space before a word is not shaded; a token without a visible character needs something to point at.
    const [, space, word] = /^(\s*)([^]*)$/u.exec(text);
    const ink = word ? nodes(visible(word, false)) : html`<span class="hidden">${text.includes("\n") ? "\u21b5" : text ? "\u2423" : "\u2205"}</span>`;
    const kinds = ["token", forksAt.has(i) && "forks"].filter(Boolean).join(" ");
    const style = moved(i) > 0.005 ? { "--moved": `${(100 * shade(moved(i))).toFixed(1)}%` } : undefined;
    return html`<span role="option" class=${kinds} data-i=${i} tabindex=${i === 0 ? 0 : -1} aria-selected="false" style=${style}>${word && i > 0 ? prose(space) : ""}<span class="ink">${ink}</span>${word ? "" : prose(space)}</span>`;
  }

  function Generation() {
    const parts = [];
    let i = 0;
    const tokensTo = (end) => {
      const some = [];
      for (; i < end; i++) some.push(html`<${Token} i=${i} />`);
      return some;
    };
    windows.forEach((window, n) => {
      parts.push(...tokensTo(window.start));
      const kind = window.probability >= 0.95 ? "window" : "window likely";
      parts.push(html`<span role="group" class=${kind} aria-label=${`window ${n + 1}`}>${tokensTo(window.end)}</span>`);
    });
    parts.push(...tokensTo(tokens.length));
    return html`<section class="generation" aria-labelledby="generation-title">
      <div class="heading"><h2 id="generation-title">The generation</h2>
        <p class="small scale">outcome moved by ${[0, 0.1, 0.25, 0.5, 1].map((x) => html`<span class="token" style=${{ "--moved": `${100 * shade(x)}%` }}><span class="ink">${x}</span></span>`)}</p></div>
      <div id="text" class="text said" role="listbox" aria-label="Tokens of the generation" aria-describedby="keys" aria-orientation="horizontal" dir="auto" lang="">${parts}</div>
      <p id="keys" class="small">Arrow keys move from token to token, Enter shows what else could have been said, Escape closes it.</p>
    </section>`;
  }

  function Continuation({ text, fork }) {
    const forced = text.head.startsWith(fork.token);
    return html`<li><bdi class="said" lang="">
${forced && html`<b>${line(fork.token.replace(/^ (?=\S)/u, ""))}</b>`}${line(forced ? text.head.slice(fork.token.length) : text.head)}${
      text.omitted && html`<span class="gap">${` \u2026 ${count(text.omitted, "character")} left out \u2026 `}</span>`}${text.tail && line(text.tail)}</bdi>${
      text.finish === "length" && html`<span class="small"> (cut at the length cap)</span>`}${
      text.said !== labelName(text.label) && html`<span class="small"> (${line(text.said)})</span>`}</li>`;
  }

  const Texts = ({ fork }) => fork.counts.map(([k, n]) => {
    const texts = fork.texts.filter((text) => text.label === k);
    const shown = texts.length < n ? `, ${texts.length} shown` : "";
    return html`<div class="outcome"><h4><${Label} k=${k} /> <span class="small">${count(n, "continuation")}${shown}</span></h4>
      <ul>${texts.map((text) => html`<${Continuation} text=${text} fork=${fork} />`)}</ul></div>`;
  });

  function Fork({ fork, first }) {
    const [isOpen, setOpen] = useState(first);
    const words = fork.counts.map(([k, n]) => `${plain(labelName(k))} ${n}`).join(", ");
    return html`<details class="fork" open=${isOpen} onToggle=${(event) => setOpen(event.currentTarget.open)}>
      <summary class="alternative"><span class="word"><${Said} text=${clipped(fork.token, 40)} /></span><span class="p">${tokenProb(fork.p)}</span>
        <${Bar} shares=${fork.counts.map(([k, n]) => [k, n / fork.drawn])} name=${`${count(fork.drawn, "continuation")}: ${words}`} />
        <span class="n">${whole(fork.drawn)}</span></summary>
      ${isOpen && html`<${Texts} fork=${fork} />`}
    </details>`;
  }

  function Panel({ i }) {
    const token = tokens[i];
    const forks = forksAt.get(i) ?? [];
    const free = forks.length > 0 && forks.every((fork) => fork.p === null); // a method that lets the model go on freely
    const rest = free ? 0 : token.off_path - forks.reduce((sum, fork) => sum + fork.p, 0);
    return html`<div class="sheet">
      <div class="heading"><h2 id="panel-title" tabindex="-1">${free ? "From" : "Instead of"} <${Said} text=${clipped(token.text, 40)} />${free && " on"}</h2>
        <button type="button" class="plain" id="close" aria-label="Close the forks">close</button></div>
      <p class="small">Token ${i + 1} of ${whole(tokens.length)}. ${forks.length > 0 && (free ? "The model went on freely from here; its continuations, by first token." : "Open an alternative for what the model wrote after it.")}</p>
      <div class="alternative head" aria-hidden="true"><span>token</span><span class="p">prob.</span><span>what came out</span><span class="n">drawn</span></div>
      ${!free && html`<div class="alternative kept"><span class="word"><${Said} text=${clipped(token.text, 40)} /></span><span class="p">${tokenProb(token.p)}</span><${Law} row=${before[i] + 1} /><span class="n">said</span></div>`}
      ${forks.map((fork, n) => html`<${Fork} key=${`${i}/${n}`} fork=${fork} first=${n === 0} />`)}
      ${rest > 0.005 && html`<p class="small">Alternatives that none of the continuations began with: ${prob(rest)} together.</p>`}
      ${forks.length === 0 && html`<p class="nothing">${token.off_path === 0 ? "No other token was possible here." : "No continuation was drawn here: too little hangs on it."}</p>`}
    </div>`;
  }

  const Hint = () => html`<p class="small hint">Choose a token to see what else could have been said there, and what came of it.</p>`;

  // ------------------------------------------------------------------ tables below

  const towards = (window) => [`away from ${plain(data.final_label)}`, "between other labels", `towards ${plain(data.final_label)}`][window.direction + 1];
  const span = ({ start, end }) => (end === start + 1 ? `${end}` : `${start + 1}\u2013${end}`);
  const rowOf = (kept) => curve.position.indexOf(kept);

  const WindowRow = ({ window, n }) => html`<tr>
    <th scope="row"><button type="button" class="jump" data-jump=${window.start} aria-label=${`Show window ${n}`}>${n}</button></th>
    <td data-name="Text"><${Said} text=${clipped(window.text.trim() || window.text, 80)} /></td>
    <td data-name="Tokens" class="number">${span(window)}</td>
    <td data-name="Change" class="number"><span>${prob(window.change)} <span class="interval">${prob(window.low)}\u2013${prob(window.high)}</span></span></td>
    <td data-name="Probability" class="number">${prob(window.probability)}</td>
    <td data-name="Direction">${towards(window)}</td>
    <td data-name="Before"><${Outcome} row=${rowOf(window.start)} /></td>
    <td data-name="After"><${Outcome} row=${rowOf(window.end)} /></td></tr>`;

  const Outcome = ({ row }) => html`<div class="law"><${Law} row=${row} /><span class="small">${byWeight(curve.mean[row]).slice(0, 3).filter(([, p]) => p >= 0.005).map(([k, p]) => html`<span class="share">${line(clipped(labelName(k), 24))} ${prob(p)}</span>`)}</span></div>`;

  const Windows = () => html`<section aria-labelledby="windows-title"><h2 id="windows-title">Windows</h2>
    ${windows.length === 0
      ? html`<p>None: no stretch of at most ${count(data.target.max_width, "token")} moved the outcome by ${data.target.delta} or more.</p>`
      : html`<table class="windows"><caption class="small">The shortest stretches, of at most ${count(data.target.max_width, "token")}, that moved the outcome by ${data.target.delta} or more. Intervals hold ${percent(data.target.level)} of the joint draws; the probability is the share of draws in which the change reaches ${data.target.delta}.</caption>
        <thead><tr>${["", "Text", "Tokens", "Change", "Probability", "Direction", "Before", "After"].map((name) => html`<th scope="col">${name || html`<span class="unseen">Number</span>`}</th>`)}</tr></thead>
        <tbody>${windows.map((window, n) => html`<${WindowRow} window=${window} n=${n + 1} />`)}</tbody></table>`}
  </section>`;

  const OFF = { top_k: 0, top_p: 1, min_p: 0 };
  /** A setting in words; filters that are switched off are left out. */
  function inWords(value) {
    if (Array.isArray(value)) return value.map(inWords).join(", ");
    if (value === null || typeof value !== "object") return String(value);
    const on = Object.entries(value).filter(([name, entry]) => entry !== OFF[name] && entry !== null && entry.length !== 0);
    return on.map(([name, entry]) => `${name.replaceAll("_", " ")} ${inWords(entry)}`).join(", ");
  }
  const Facts = ({ title, facts }) => html`<div><h3>${title}</h3><dl>${facts.map(([name, value, why]) => html`<div><dt>${line(name)}</dt><dd>${line(value)}${why && html`<p class="small">${why}</p>`}</dd></div>`)}</dl></div>`;

  function Numbers() {
    const { error, cost, timing } = data;
    const settings = Object.entries({ ...data.settings, estimator: data.estimator, seed: data.settings.seed }).filter(([name, value]) => !["prompt", "system", "prefill"].includes(name) && value !== null).map(([name, value]) => [name.replaceAll("_", " "), inWords(value)]);
    const accuracy = [
      ["Error reached", small(error.reached_max), `The largest posterior standard deviation over all rows and labels; ${small(error.asked)} was asked for. Root mean square: ${small(error.reached_rms)}.`],
      ["Skipped weight", small(data.skipped_weight), "Positions that can decide next to nothing were left out. This is the most that any row of the curve can be off because of it."],
      ["Unrecorded weight", small(data.unrecorded_weight), "Alternatives that the model's interface did not list. This is the most that they can shift any row."],
    ];
    const spent = [
      ["Continuations", whole(cost.continuations)],
      ["Tokens generated", whole(cost.generated_tokens), cost.predicted_tokens ? `${whole(cost.predicted_tokens)} were predicted.` : null],
      ["Tokens scored", whole(cost.scored_tokens)],
      timing.seconds > 0 && ["Time", `${timing.seconds.toFixed(timing.seconds < 10 ? 1 : 0)} s`, `${percent(timing.model_seconds / timing.seconds)} of it in the model.`],
    ].filter(Boolean);
    return html`<section aria-labelledby="numbers-title"><h2 id="numbers-title">How it was measured</h2>
      <div class="facts-grid"><${Facts} title="Accuracy" facts=${accuracy} /><${Facts} title="Cost" facts=${spent} /><${Facts} title="Settings" facts=${settings} /></div>
      ${data.notes.length > 0 && html`<h3>Notes</h3><ul class="notes">${data.notes.map((note) => html`<li>${line(note)}</li>`)}</ul>`}
    </section>`;
  }

  const HowTo = () => html`<details class="howto"><summary>How to read this</summary>
    <p>The model wrote the generation one token at a time. At every token it could have said something else; blinkscope went back, let it say something else, and looked at how those continuations ended. From them follows, for each number of tokens kept, how likely each outcome was at that moment. That is the curve, and token n takes it from n ${"\u2212"} 1 to n tokens kept. After the last token the outcome is certain; the question is where it became so.</p>
    <p>A token is shaded by how far the outcome's law moved when it was said: half the sum of the absolute changes (total variation), from 0 to 1.${everyToken ? "" : " This method looked at some tokens only; those between two looks share one shade."} A <em>window</em> is a short stretch that moved it by ${data.target.delta} or more. It is underlined and numbered in the text and tinted in the plot, with a broken line where it is probable rather than certain.</p>
    <p>The bands hold ${percent(curve.level)} of the joint draws of the curve: that much is not known because only so many continuations were drawn. ${data.truth ? "The dotted lines are the exact curve, which is known for this model. " : ""}A token's forks are the alternatives from which continuations were drawn, each with its probability under the sampling settings, what came out, and at most ${count(data.excerpt.texts, "text")} for each outcome, shortened in the middle. The run file holds them all.</p>
    <p>Drag across the plot to look closer and double-click to return. Characters that would be invisible or reorder the text are spelled out, <span class="hidden">U+202E</span> for instance.</p>
  </details>`;

  const Page = () => html`<${Top} />
    <div class="bench"><${Instrument} /><${Generation} /><aside id="panel" class="panel" aria-label="Forks"></aside></div>
    <${Windows} /><${Numbers} /><${HowTo} />
    <footer class="small">Written by blinkscope. This file holds all it shows and fetches nothing.</footer>`;

  document.title = `${clipped(plain(data.question), 60) || "A generation"} \u00b7 blinkscope`;
  render(html`<${Page} />`, element("report"));

  // ------------------------------------------------------------------ the plot

  const root = getComputedStyle(document.documentElement); // live: follows the colour scheme
  const colour = (name) => root.getPropertyValue(name).trim();
  const plot = makePlot();

  function series() {
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
      add(k, curve.mean, { stroke, width: k === finalLabel ? 2.5 : 1.5, dash: dash(k), points: { show: !everyToken, size: 6, fill: stroke } });
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
    return [
      { ...axis, grid: { show: false }, size: 26, gap: 4, values: (_, splits) => splits.map((x) => (Number.isInteger(x) ? whole(x) : "")) },
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

  function makePlot() {
    const host = element("plot");
    const height = () => parseFloat(getComputedStyle(host).height);
    const { list, columns, bands, of } = series();
    const pointed = new Set(of.map((numbers) => numbers[0]));
    const marker = document.createElement("div");
    marker.className = "marker";
    const tokenAt = (x) => Math.max(0, Math.min(tokens.length - 1, Math.floor(x)));
    let down = null;
    const u = new uPlot({
      width: host.clientWidth,
      height: height(),
      padding: [18, 18, 0, 0],
      legend: { show: false },
      scales: { x: { time: false }, y: { range: [-0.02, 1.02] } },
      axes: axes(),
      series: list,
      bands,
      cursor: {
        x: false,
        y: false,
        drag: { x: true, y: false, dist: 6 },
        dataIdx: (_, number, nearest, x) => (pointed.has(number) ? (before[tokenAt(x)] ?? nearest - 1) + 1 : null),
        points: { size: 7, width: 1.5 },
      },
      hooks: {
        drawClear: [tintWindows],
        setCursor: [(self) => (self.cursor.left >= 0 ? look(tokenAt(self.posToVal(self.cursor.left, "x")), { fromPlot: true }) : rest())],
        setScale: [(self, key) => key === "x" && (element("reset").hidden = self.scales.x.min <= 0 && self.scales.x.max >= tokens.length)],
      },
    }, columns, host);
    u.over.append(marker);
    u.over.addEventListener("mousedown", (event) => (down = event.clientX));
    u.over.addEventListener("click", (event) => Math.abs(event.clientX - down) < 5 && openToken(tokenAt(u.posToVal(u.cursor.left, "x")), { block: "center" }));
    element("reset").addEventListener("click", () => u.setScale("x", { min: 0, max: tokens.length }));
    new ResizeObserver(() => u.setSize({ width: host.clientWidth, height: height() })).observe(host);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => u.redraw(false));
    return { u, of, marker };
  }

  /** Mark token i in the plot: its stretch of the axis, and a point on every curve just after it. */
  function mark(i, fromPlot) {
    const { u, marker } = plot;
    const left = u.valToPos(i, "x");
    const width = Math.max(2, u.valToPos(i + 1, "x") - left);
    marker.style.transform = `translateX(${left}px)`;
    marker.style.width = `${width}px`;
    const middle = left + width / 2;
    const seen = middle >= 0 && middle <= u.over.clientWidth;
    if (!fromPlot) u.setCursor({ left: seen ? middle : -10, top: 0 }, false);
  }

  // ------------------------------------------------------------------ pointing at a token

  const text = element("text");
  const tokenNodes = [...text.querySelectorAll(".token")];
  const values = [...document.querySelectorAll(".legend .value")];
  let looked = -1; // the token that everything points at
  let reached = 0; // the token that Tab leads to
  let opened = -1; // the token whose forks are shown

  function look(i, { fromPlot = false, aloud = false } = {}) {
    if (aloud) announce(i);
    if (i === looked && fromPlot) return;
    tokenNodes[looked]?.classList.remove("looked");
    tokenNodes[i].classList.add("looked");
    looked = i;
    mark(i, fromPlot);
    readOut(i);
  }

  /** Where the page points when nobody does: the open token, or the one that moved most. */
  function rest() {
    if (tokens.length > 0) look(opened >= 0 ? opened : decisive());
  }

  function decisive() {
    const largest = [...windows].sort((a, b) => b.change - a.change)[0];
    return mostMoved(largest ?? { start: 0, end: tokens.length });
  }

  function mostMoved({ start, end }) {
    let best = start;
    for (let i = start; i < end; i++) if (moved(i) > moved(best)) best = i;
    return best;
  }

  function interval(row, k) {
    return `${prob(curve.low[row][k])}\u2013${prob(curve.high[row][k])}`;
  }

  function readOut(i) {
    const row = before[i];
    const { p, off_path: offPath } = tokens[i];
    const around = (from, to) => plain(tokens.slice(Math.max(0, from), to).map((token) => token.text).join(""));
    render(html`<span class="where">token ${i + 1}</span> <bdi class="said context" lang="">${around(i - 4, i).slice(-28)}<b>${plain(tokens[i].text).slice(0, 40)}</b>${around(i + 1, i + 5).slice(0, 28)}</bdi>
      <span>probability ${tokenProb(p)}</span> <span>off-path ${tokenProb(offPath)}</span> <span>moved ${prob(moved(i))}</span>`, element("readout"));
    values.forEach((node, k) => {
      const [from, to] = [prob(curve.mean[row][k]), prob(curve.mean[row + 1][k])];
      node.firstChild ? (node.firstChild.data = `${from} \u2192 ${to}`) : node.append(`${from} \u2192 ${to}`, document.createElement("small"));
      node.lastChild.textContent = interval(row + 1, k);
    });
  }

  function announce(i) {
    const row = before[i] + 1;
    const law = byWeight(curve.mean[row]).slice(0, 3).map(([k, p]) => `${plain(labelName(k))} ${prob(p)} (${interval(row, k)})`).join(", ");
    const forks = forksAt.get(i)?.length ?? 0;
    element("live").textContent = `Token ${i + 1} of ${tokens.length}, probability ${tokenProb(tokens[i].p)}, off-path probability ${tokenProb(tokens[i].off_path)}. `
      + `The outcome moved by ${prob(moved(i))}. After it: ${law}. ${forks ? `${count(forks, "fork")}, press Enter.` : "No forks."}`;
  }

  function openToken(i, { focus = false, block = "nearest" } = {}) {
    tokenNodes[opened]?.setAttribute("aria-selected", "false");
    opened = i;
    tokenNodes[i].setAttribute("aria-selected", "true");
    document.body.classList.add("panel-open");
    render(html`<${Panel} key=${i} i=${i} />`, element("panel"));
    element("panel").scrollTop = 0;
    element("close").onclick = () => closePanel(true);
    look(i);
    if (block) show(i, block);
    if (focus) element("panel-title").focus({ preventScroll: true });
  }

  function closePanel(focus) {
    if (opened < 0) return;
    const last = opened;
    tokenNodes[opened].setAttribute("aria-selected", "false");
    opened = -1;
    document.body.classList.remove("panel-open");
    render(html`<${Hint} />`, element("panel"));
    if (focus) tokenNodes[last].focus();
  }

  /** Bring token i into the part of the page that instrument and panel leave free (its scroll margins). */
  function show(i, block) {
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    tokenNodes[i].scrollIntoView({ block, behavior: still ? "auto" : "smooth" });
  }

  /** Tab leads to the token that had the focus last; the arrow keys lead on from there. */
  function reach(i) {
    tokenNodes[reached].tabIndex = -1;
    reached = i;
    tokenNodes[i].tabIndex = 0;
    look(i, { aloud: true });
  }

  /** The token above or below: the nearest one, across, on the next line of the text. */
  function onNextLine(i, step) {
    const middle = (j) => tokenNodes[j].offsetLeft + tokenNodes[j].offsetWidth / 2;
    const top = (j) => tokenNodes[j].getClientRects()[0].top;
    let j = i;
    while (tokenNodes[j] && Math.abs(top(j) - top(i)) < 4) j += step;
    if (!tokenNodes[j]) return i;
    let best = j;
    for (const line_ = top(j); tokenNodes[j] && Math.abs(top(j) - line_) < 4; j += step) {
      if (Math.abs(middle(j) - middle(i)) < Math.abs(middle(best) - middle(i))) best = j;
    }
    return best;
  }

  function steer(event) {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const i = Number(event.target.dataset.i);
    const forward = getComputedStyle(text).direction === "rtl" ? -1 : 1;
    const target = {
      ArrowRight: () => i + forward,
      ArrowLeft: () => i - forward,
      ArrowDown: () => onNextLine(i, 1),
      ArrowUp: () => onNextLine(i, -1),
      Home: () => 0,
      End: () => tokens.length - 1,
    }[event.key];
    if (target) tokenNodes[Math.max(0, Math.min(tokens.length - 1, target()))].focus();
    else if (event.key === "Enter" || event.key === " ") openToken(i, { focus: true });
    else return;
    event.preventDefault();
  }

  const tokenOf = (event) => event.target.closest?.(".text .token");

  text.addEventListener("pointerover", (event) => tokenOf(event) && look(Number(tokenOf(event).dataset.i)));
  text.addEventListener("pointerleave", rest);
  text.addEventListener("focusin", (event) => tokenOf(event) && reach(Number(tokenOf(event).dataset.i)));
  text.addEventListener("keydown", steer);
  text.addEventListener("click", (event) => tokenOf(event) && openToken(Number(tokenOf(event).dataset.i)));
  document.addEventListener("keydown", (event) => event.key === "Escape" && closePanel(true));

  document.addEventListener("click", (event) => {
    const key = event.target.closest?.(".key");
    const jump = event.target.closest?.(".jump");
    if (key) toggle(key);
    if (jump) openToken(mostMoved(windows[Number(jump.textContent) - 1]), { block: "center" });
  });

  function toggle(key) {
    const pressed = key.getAttribute("aria-pressed") !== "true";
    key.setAttribute("aria-pressed", String(pressed));
    plot.u.batch(() => plot.of[Number(key.dataset.label)].forEach((number) => plot.u.setSeries(number, { show: pressed })));
  }

  // ------------------------------------------------------------------ at first

  // The instrument stays in view; what scrolls under it must know how tall it is.
  new ResizeObserver(([entry]) => document.documentElement.style.setProperty("--instrument", `${entry.target.offsetHeight}px`)).observe(element("instrument"));
  render(html`<${Hint} />`, element("panel"));
  // With room beside the text the page opens on the forks of the decisive token; a small screen shows the text first.
  if (tokens.length > 0 && forksAt.has(decisive()) && matchMedia("(min-width: 68rem)").matches) openToken(decisive(), { block: null });
  rest();
})();
