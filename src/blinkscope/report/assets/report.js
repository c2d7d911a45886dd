/* What the page of one generation shows; `instrument.js` then makes it move. */
const report = (() => {
  "use strict";
  const { html, render, useState } = htmPreact;
  const {
    data, labels, curve, windows, element, finalLabel, slot, labelName, ranked,
    prose, line, plain, part, clipped, prob, small, tokenProb, whole, percent, count, inWords,
    Said, Label, Bar, Law, STATUS, Numbers,
  } = common;
  const { change } = data;
  const tokens = data.generation.tokens;

  // ------------------------------------------------------------------ the curve by token

  // A method may have looked at some rows only. Token i lies between rows before[i] and before[i] + 1.
  const before = [];
  for (let row = 0; row + 1 < curve.position.length; row++) {
    for (let i = curve.position[row]; i < curve.position[row + 1]; i++) before[i] = row;
  }
  const everyToken = curve.position.length === tokens.length + 1;
  const moved = (i) => change[before[i]] ?? 0;
  const written = data.continuations.some(({ texts }) => texts.length > 0); // recordings may have outcomes alone
  const forksAt = new Map();
  for (const fork of data.continuations) {
    if (!forksAt.has(fork.position)) forksAt.set(fork.position, []);
    forksAt.get(fork.position).push(fork);
  }

  // ------------------------------------------------------------------ the top of the page

  const Turn = ({ role, content }) => html`<div class="turn">
    <p class="small">${line(role)}</p>
    <p class="said" dir="auto" lang="">${prose(content)}</p>
  </div>`;

  function Prompt() {
    const { prompt, system, prefill } = data.settings;
    const turns = Array.isArray(prompt) ? [...prompt] : [{ role: "user", content: prompt ?? "" }];
    if (system) turns.unshift({ role: "system", content: system });
    if (prefill) turns.push({ role: "assistant", content: prefill });
    if (turns.length === 1 && String(turns[0].content).length <= TITLE_LENGTH) return null;
    return html`<details class="prompt">
      <summary>The whole prompt</summary>
      ${turns.map(({ role, content }) => html`<${Turn} role=${role} content=${content} />`)}
    </details>`;
  }

  const TITLE_LENGTH = 320;
  const Top = () => html`<header>
    <p class="small kicker">blinkscope</p>
    <h1 class=${data.question.length > 160 ? "said long" : "said"} dir="auto" lang="">
      ${line(clipped(data.question || "A generation", TITLE_LENGTH))}
    </h1>
    <p class="lead">${line(data.answer)} ${line(data.finding)}</p>
    ${STATUS[data.status] && html`<p class="notice">${STATUS[data.status]}</p>`}
    <p class="small facts">
      <span>${line(data.settings.model ?? "")}</span>
      <span>${count(tokens.length, "token")}</span>
      <span>${count(data.cost.continuations, "continuation")}</span>
      <span>error ${small(data.error.reached_max)}</span>
    </p>
    <${Prompt} />
  </header>`;

  // ------------------------------------------------------------------ instrument and text

  const Key = ({ k }) => html`
    <button type="button" class=${`key label-${slot(k)}`} data-label=${k} aria-pressed="true" title=${plain(labels[k])}>
      <i class="stroke"></i>
      <span class=${k === finalLabel ? "name final" : "name"}>${line(labels[k])}</span>
      ${k === finalLabel && html`<span class="unseen">, the answer</span>`}
      <span class="value"></span>
    </button>`;

  const PLOT_IN_WORDS = "Curves with bands. The same numbers are read out for each token of the generation below.";

  const Instrument = () => html`
    <section class="instrument" id="instrument" aria-label="Probability of every label, by tokens kept">
      <div id="plot" class="plot" role="img" aria-label=${PLOT_IN_WORDS}></div>
      <button type="button" id="reset" class="plain" hidden>whole curve</button>
      <div class="legend" role="group" aria-label="Labels; press one to hide or show its curve">
        ${labels.map((_, k) => html`<${Key} k=${k} />`)}
      </div>
      <p id="readout" class="readout" aria-hidden="true"></p>
      <p id="live" class="unseen" role="status" aria-live="polite"></p>
    </section>`;

  /** How strongly a movement is shaded: a little should show without a lot of it saturating. */
  const shading = (x) => ({ "--moved": `${(100 * Math.min(1, x) ** 0.7).toFixed(1)}%` });

  function Token({ i }) {
    const { text } = tokens[i];
    // The space before a word is not shaded; a token without a visible character needs something to point at.
    const [, space, word] = /^(\s*)([^]*)$/u.exec(text);
    const blank = text.includes("\n") ? "\u21b5" : text ? "\u2423" : "\u2205";
    const ink = word ? prose(word) : html`<span class="hidden">${blank}</span>`;
    const style = moved(i) > 0.005 ? shading(moved(i)) : undefined;
    return html`<span role="option" class="token" data-i=${i} tabindex="-1" aria-selected="false" style=${style}>
      ${word && i > 0 ? prose(space) : ""}<span class="ink">${ink}</span>${word ? "" : prose(space)}
    </span>`;
  }

  /** The tokens, those of a window together in a group. */
  function groupedTokens() {
    const range = (start, end) => tokens.slice(start, end).map((_, k) => html`<${Token} i=${start + k} />`);
    const parts = [];
    let from = 0;
    windows.forEach((window, n) => {
      const kind = window.probability >= 0.95 ? "window" : "window likely";
      parts.push(...range(from, window.start));
      parts.push(html`<span role="group" class=${kind} aria-label=${`window ${n + 1}`}>
        ${range(window.start, window.end)}
      </span>`);
      from = window.end;
    });
    return [...parts, ...range(from)];
  }

  const Swatch = ({ x }) => html`<span class="token" style=${shading(x)}><span class="ink">${x}</span></span>`;
  const Scale = () => html`<p class="small scale">
    ${"outcome moved by "}${[0, 0.1, 0.25, 0.5, 1].map((x) => html`<${Swatch} x=${x} />`)}
  </p>`;

  const Generation = () => html`<section class="generation" aria-labelledby="generation-title">
    <div class="heading"><h2 id="generation-title">The generation</h2><${Scale} /></div>
    <div id="text" class="text said" role="listbox" aria-label="Tokens of the generation" aria-describedby="keys"
      aria-orientation="horizontal" dir="auto" lang="">${groupedTokens()}</div>
    <p id="keys" class="small">
      Arrow keys move from token to token, Enter shows what else could have been said, Escape closes it.
    </p>
  </section>`;

  // ------------------------------------------------------------------ the panel of forks

  function Continuation({ text, fork }) {
    const forced = text.head.startsWith(fork.token);
    const gap = text.omitted && ` \u2026 ${count(text.omitted, "character")} left out \u2026 `;
    const remarks = [
      text.times > 1 && `${whole(text.times)} times`,
      text.head === "" && "the reply ended here",
      text.finish === "length" && "cut at the length cap",
      text.said !== labelName(text.label) && text.said, // a label that the curve sums into (other)
    ].filter(Boolean);
    return html`<li>
      <bdi class="said" lang="">
        ${forced && html`<b>${line(fork.token.replace(/^ (?=\S)/u, ""))}</b>`}
        ${line(forced ? text.head.slice(fork.token.length) : text.head)}
        ${gap && html`<span class="gap">${gap}</span>`}
        ${line(text.tail ?? "")}
      </bdi>
      ${remarks.map((remark) => html`<span class="small"> (${line(remark)})</span>`)}
    </li>`;
  }

  function Outcome({ fork, k, n }) {
    const texts = fork.texts.filter((text) => text.label === k);
    const told = texts.reduce((sum, text) => sum + text.times, 0);
    const shown = written && told < n ? `, ${whole(told)} shown` : "";
    return html`<div class="outcome">
      <h4><${Label} k=${k} /><span class="small">${count(n, "continuation")}${shown}</span></h4>
      <ul>${texts.map((text) => html`<${Continuation} text=${text} fork=${fork} />`)}</ul>
    </div>`;
  }

  /** One alternative; its texts are rendered when it is opened. */
  function Fork({ fork, first }) {
    const [isOpen, setOpen] = useState(first);
    const shares = fork.counts.map(([k, n]) => [k, n / fork.drawn]);
    const words = fork.counts.map(([k, n]) => `${plain(labelName(k))} ${n}`).join(", ");
    return html`<details class="fork" open=${isOpen} onToggle=${(event) => setOpen(event.currentTarget.open)}>
      <summary class="alternative">
        <span class="word"><${Said} text=${clipped(fork.token, 40)} /></span>
        <span class="p">${tokenProb(fork.p)}</span>
        <${Bar} shares=${shares} name=${`${count(fork.drawn, "continuation")}: ${words}`} />
        <span class="n">${whole(fork.drawn)}</span>
      </summary>
      ${isOpen && fork.counts.map(([k, n]) => html`<${Outcome} fork=${fork} k=${k} n=${n} />`)}
    </details>`;
  }

  const Kept = ({ i }) => html`<div class="alternative kept">
    <span class="word"><${Said} text=${clipped(tokens[i].text, 40)} /></span>
    <span class="p">${tokenProb(tokens[i].p)}</span>
    <${Law} row=${before[i] + 1} />
    <span class="n">said</span>
  </div>`;

  const ForkHeadings = () => html`<div class="alternative head" aria-hidden="true">
    <span>token</span><span class="p">prob.</span><span>what came out</span><span class="n">drawn</span>
  </div>`;

  function Panel({ i }) {
    const token = tokens[i];
    const forks = forksAt.get(i) ?? [];
    const free = forks.length > 0 && forks.every((fork) => fork.p === null); // the model went on as it liked
    const rest = token.off_path - forks.reduce((sum, fork) => sum + fork.p, 0);
    const advice = free
      ? "The model went on freely from here; its continuations, by first token."
      : written ? "Open an alternative for what the model wrote after it."
        : "What the model wrote after an alternative was not recorded; what came of it was.";
    const nothing = token.off_path === 0
      ? "No other token was possible here."
      : "No continuation was drawn here: too little hangs on it.";
    return html`<div class="sheet">
      <div class="heading">
        <h2 id="panel-title" tabindex="-1">
          ${free ? "From" : "Instead of"} <${Said} text=${clipped(token.text, 40)} />${free && " on"}
        </h2>
        <button type="button" class="plain" id="close" aria-label="Close the forks">close</button>
      </div>
      <p class="small">Token ${i + 1} of ${whole(tokens.length)}. ${forks.length > 0 && advice}</p>
      <${ForkHeadings} />
      ${!free && html`<${Kept} i=${i} />`}
      ${forks.map((fork, n) => html`<${Fork} key=${`${i}/${n}`} fork=${fork} first=${n === 0} />`)}
      ${!free && rest > 0.005 && forks.length > 0
        && html`<p class="small">Alternatives that none of the continuations began with: ${prob(rest)} together.</p>`}
      ${forks.length === 0 && html`<p class="nothing">${nothing}</p>`}
    </div>`;
  }

  const Hint = () => html`<p class="small hint">
    Choose a token to see what else could have been said there, and what came of it.
  </p>`;

  // ------------------------------------------------------------------ windows

  function direction({ start, end, change, direction }) {
    if (direction) return `${direction > 0 ? "towards" : "away from"} ${data.final_label}`;
    const [before, after] = [start, end].map((at) => curve.mean[curve.position.indexOf(at)][finalLabel] ?? 0);
    return Math.abs(after - before) > change / 2 ? "not certain" : "between other labels";
  }
  const WINDOW_COLUMNS = ["Text", "Tokens", "Change", "Probability", "Direction", "Before", "After"];

  const LawCell = ({ row }) => html`<div class="law">
    <${Law} row=${row} />
    <span class="small">
      ${ranked(curve.mean[row])
        .slice(0, 3)
        .map(([k, p]) => html`<span class="share">${line(clipped(labelName(k), 24))} ${prob(p)}</span>`)}
    </span>
  </div>`;

  function WindowRow({ window, n }) {
    const { start, end } = window;
    const interval = `${prob(window.low)}\u2013${prob(window.high)}`;
    const cells = {
      Text: html`<${Said} text=${clipped(window.text.trim() || window.text, 80)} />`,
      Tokens: html`<span class="number">${end === start + 1 ? end : `${start + 1}\u2013${end}`}</span>`,
      Change: html`<span class="number">${prob(window.change)}<span class="interval">${interval}</span></span>`,
      Probability: prob(window.probability),
      Direction: line(clipped(direction(window), 40)),
      Before: html`<${LawCell} row=${curve.position.indexOf(start)} />`,
      After: html`<${LawCell} row=${curve.position.indexOf(end)} />`,
    };
    return html`<tr>
      <th scope="row"><button type="button" class="jump" aria-label=${`Show window ${n}`}>${n}</button></th>
      ${WINDOW_COLUMNS.map((name) => html`<td data-name=${name}>${cells[name]}</td>`)}
    </tr>`;
  }

  function Windows() {
    const { delta, max_width: width, level } = data.target;
    const stretch = `stretch of at most ${count(width, "token")}`;
    const table = html`<table class="windows">
      <caption class="small">
        Each is a shortest ${stretch} that moved the outcome by ${delta} or more. Intervals hold ${percent(level)} of
        ${" the joint draws; the probability is the share of draws in which the change reaches "}${delta}.
      </caption>
      <thead><tr>
        <th scope="col"><span class="unseen">Number</span></th>
        ${WINDOW_COLUMNS.map((name) => html`<th scope="col">${name}</th>`)}
      </tr></thead>
      <tbody>${windows.map((window, n) => html`<${WindowRow} window=${window} n=${n + 1} />`)}</tbody>
    </table>`;
    return html`<section aria-labelledby="windows-title">
      <h2 id="windows-title">Windows</h2>
      ${windows.length === 0 ? html`<p>${line(data.finding)}</p>` : table}
    </section>`;
  }

  // ------------------------------------------------------------------ settings, accuracy, cost

  function settings() {
    const elsewhere = ["prompt", "system", "prefill"]; // these stand at the top
    const until = data.until === "windows" ? "windows are known" : null;
    return Object.entries({ ...data.settings, estimator: data.estimator, until })
      .filter(([name, value]) => !elsewhere.includes(name) && value !== null)
      .map(([name, value]) => [name.replaceAll("_", " "), inWords(value)]);
  }

  function accuracy() {
    const { asked, reached_max: largest, reached_rms: typical } = data.error;
    const error = "The largest posterior standard deviation over all rows and labels";
    const sought = data.undecided;
    const leftOut = data.estimator === "pooled" ? "Positions without a draw are read from their neighbours."
      : data.skipped_weight <= asked ? "Positions that can decide next to nothing were left out."
      : "Positions that may matter were left out: not enough was drawn.";
    const skipped = `${leftOut} This is the most that any row of the curve can be off because of it.`;
    const unrecorded = "Alternatives that were not recorded, or not listed by the model's interface. This is the "
      + "most that they can shift any row.";
    return [
      sought && ["Windows undecided", small(sought.probability),
        `The probability that a change of ${small(sought.clear)} is not listed, or that a listed one is less than `
        + `${small(sought.least)}; asked for ${small(sought.asked)}.`],
      ["Error reached", small(largest), `${error}; ${asked === null ? "not asked for" : `asked for ${small(asked)}`}. Root mean square: ${small(typical)}.`],
      ["Skipped weight", small(data.skipped_weight), skipped],
      ["Unrecorded weight", small(data.unrecorded_weight), unrecorded],
    ].filter(Boolean);
  }

  function cost() {
    const { generated_tokens: generated, predicted_tokens: predicted } = data.cost;
    return [
      ["Continuations", whole(data.cost.continuations)],
      ["Tokens generated", whole(generated), predicted > 0 && `${whole(predicted)} were predicted.`],
      ["Tokens scored", whole(data.cost.scored_tokens)],
    ];
  }

  // ------------------------------------------------------------------ how to read this, and the whole

  const HowTo = () => html`<details class="howto">
    <summary>How to read this</summary>
    <p>
      The model wrote the generation one token at a time. At every token it could have said something else; blinkscope
      went back, let it say something else, and looked at how those continuations ended. From them follows, for each
      number of tokens kept, how likely each outcome was at that moment. That is the curve, and token n takes it from
      n \u2212 1 to n tokens kept. After the last token the outcome is certain; the question is where it became so.
    </p>
    <p>
      A token is shaded by how far the outcome's law moved when it was said: half the sum of the absolute changes (total
      variation), from 0 to 1. ${everyToken ? "" : "This method looked at a few tokens; those between share a shade. "}
      A window is a short stretch that moved it by ${data.target.delta} or more. It is underlined and numbered in the
      text and tinted in the plot; the line is broken where the window is probable rather than certain.
    </p>
    <p>
      The bands hold ${percent(curve.level)} of the joint draws of the curve: that much is not known because only so
      many continuations were drawn. ${data.truth ? "The dotted lines are the exact curve. " : ""}
      A token's forks are the alternatives from which continuations were drawn, each with its probability under the
      sampling settings, what came out${written && html`, and at most ${count(data.excerpt.texts, "text")} for each
      outcome, the most frequent first, shortened in the middle. The run file holds them all`}.
    </p>
    <p>
      Drag across the plot to look closer and double-click to return. Characters that would be invisible or reorder the
      text are spelled out, <span class="hidden">U+202E</span> for instance.
    </p>
  </details>`;

  const Page = () => html`
    <${Top} />
    <div class="bench">
      <${Instrument} />
      <${Generation} />
      <aside id="panel" class="panel" aria-label="Forks"></aside>
    </div>
    <${Windows} />
    <${Numbers} accuracy=${accuracy()} cost=${cost()} settings=${settings()} />
    <${HowTo} />
    <footer class="small">Written by blinkscope. This file holds all it shows and fetches nothing.</footer>`;

  document.title = `${clipped(plain(data.question), 60) || "A generation"} \u00b7 blinkscope`;
  render(html`<${Page} />`, element("report"));

  return {
    tokens, labels, curve, windows, before, everyToken, moved, forksAt,
    element, plain, part, prob, tokenProb, count, labelName, ranked, Panel, Hint,
  };
})();
