/* The page of one picture, or of one text of symbols: what it was at each noise level, what it became from there, and the curve over the levels. */
(() => {
  "use strict";
  const { html, render } = htmPreact;
  const {
    data, labels, curve, windows, element, finalLabel, slot, labelName, ranked, line, plain, prob, small, whole,
    percent, count, inWords, Label, Bar, Law, STATUS, Numbers, series, drawCurve,
  } = common;
  const { levels, target } = data;
  const isText = data.subject === "text";
  const [noised, denoised] = isText ? ["masked", "filled in"] : ["noised", "denoised"];
  const said = (x) => (x === "inf" ? "\u221e" : x === "-inf" ? "\u2212\u221e" : small(Math.abs(x) > 1e-9 ? x : 0));

  /** What the level of a row is called in the theory: its time and, of Gaussian noise, its ratio of signal to noise. */
  const clocks = (row) => [
    `${curve.log_snr ? "t" : "masked"} = ${said(curve.time[row])}`,
    ...(curve.log_snr ? [`log-SNR ${said(curve.log_snr[row])}`] : []),
  ];
  const sentence = (words) => words[0].toUpperCase() + words.slice(1);
  const rowOf = (position) => curve.position.indexOf(position);
  const inWindow = (position) => windows.some(({ start, end }) => start <= position && position <= end);

  // ------------------------------------------------------------------ pictures

  /** Bytes of one picture on a canvas; the policy of the page admits no images. */
  function paint(canvas, { shape: [height, width, channels], pixels }) {
    if (!canvas) return;
    const bytes = atob(pixels);
    const image = new ImageData(width, height);
    for (let i = 0; i < width * height; i++) {
      for (let c = 0; c < 3; c++) image.data[4 * i + c] = bytes.charCodeAt(channels * i + (channels === 3 ? c : 0));
      image.data[4 * i + 3] = 255;
    }
    canvas.getContext("2d").putImageData(image, 0, 0);
  }

  const Picture = ({ thumbnail, name, kind }) => html`<canvas class=${`picture ${kind ?? ""}`} role="img"
    aria-label=${name} width=${thumbnail.shape[1]} height=${thumbnail.shape[0]}
    ref=${(canvas) => paint(canvas, thumbnail)}></canvas>`;

  const Symbols = ({ symbols, kind }) => html`<code class=${`symbols ${kind ?? ""}`}>${line(symbols)}</code>`;

  const Sample = ({ sample, name, kind }) => sample && (sample.symbols === undefined
    ? html`<${Picture} thumbnail=${sample} name=${name} kind=${kind} />`
    : html`<${Symbols} symbols=${sample.symbols} kind=${kind} />`);

  // ------------------------------------------------------------------ the parts of the page

  const Top = () => html`<header>
    <p class="small kicker">blinkscope</p>
    <div class="subject">
      <${Sample} sample=${levels.at(-1).state} name=${`The picture, read as ${plain(data.final_label)}`} kind="large" />
      <div>
        <h1>When was this ${data.subject} decided?</h1>
        <p class="lead">${line(data.answer)} ${line(data.finding)}</p>
        ${STATUS[data.status] && html`<p class="notice">${STATUS[data.status]}</p>`}
        <p class="small facts">
          <span>${line(data.settings.model ?? "")}</span>
          ${data.settings.prompt && html`<span>${line(data.settings.prompt)}</span>`}
          <span>${count(levels.at(-1).position, "step")}</span>
          <span>${count(data.cost.continuations, "continuation")}</span>
          <span>error ${small(data.error.reached_max)}</span>
        </p>
      </div>
    </div>
  </header>`;

  const Key = ({ k }) => html`<span class=${`key label-${slot(k)}`}>
    <i class="stroke"></i><span class=${k === finalLabel ? "name final" : "name"}>${line(labels[k])}</span>
  </span>`;

  const Curve = () => html`<section aria-labelledby="curve-title">
    <h2 id="curve-title">What it would have become, by reverse steps taken</h2>
    <div id="plot" class="plot" role="img" aria-label="Curves with bands. The table below has the same numbers."></div>
    <div class="legend">${labels.map((_, k) => html`<${Key} k=${k} />`)}</div>
    <p class="small">${line(data.method)} Step 0 is the noisiest level, step ${levels.at(-1).position} the ${data.subject}.</p>
  </section>`;

  const Stage = ({ stage }) => html`<li>From step ${curve.position[stage.row]} on (${clocks(stage.row).join(", ")}):
    ${" "}${stage.labels.map((label, i) => html`${i > 0 && (i === stage.labels.length - 1 ? " or " : ", ")}${line(label)}`)},
    ${" "}with probability ${prob(stage.inside)}${stage.inside < 1 && html`<span class="interval">${prob(stage.low)}\u2013${prob(stage.high)}</span>`}.</li>`;

  const Narrowing = () => html`<section aria-labelledby="tree-title">
    <h2 id="tree-title">What it could still have become</h2>
    <${trees.Tree} tree=${data.tree} spans=${windows} />
    <ul class="notes">${data.stages.map((stage) => html`<${Stage} stage=${stage} />`)}</ul>
    <p class="small">Each set is the smallest one that keeps all but ${data.open} of the probability from its step on. A
      line that ends in a dot is an outcome that is no longer open; what stands nowhere was hardly ever open.</p>
  </section>`;

  const Became = ({ k, label, sample }) => html`<figure class=${`became ${isText ? "text" : ""} label-${slot(k)}`}>
    <${Sample} sample=${sample} name=${`became ${plain(label)}`} />
    <figcaption class="label">${line(label)}</figcaption>
  </figure>`;

  const limits = (row, k) => `${prob(curve.low[row][k])}\u2013${prob(curve.high[row][k])}`;

  function Level({ level, row }) {
    const words = level.counts.map(([k, n]) => `${plain(labelName(k))} ${n}`).join(", ");
    const hidden = level.drawn - level.became.length;
    return html`<tr class=${inWindow(level.position) ? "inside" : ""}>
      <th scope="row" class="number">${level.position}
        ${clocks(row).map((name) => html`<span class="small clock">${name}</span>`)}</th>
      <td><${Sample} sample=${level.state} name=${`the state after ${level.position} steps`} /></td>
      <td class="law">
        <${Law} row=${row} />
        <span class="small">${ranked(curve.mean[row]).slice(0, 4).map(([k, p]) => html`<span class="share">
          ${line(labelName(k))} ${prob(p)}${level.drawn > 0 && html`<span class="interval">${limits(row, k)}</span>`}
        </span>`)}</span>
      </td>
      <td><div class="strip" title=${words}>
        ${level.became.map((one) => html`<${Became} ...${one} />`)}
        ${hidden > 0 && html`<span class="small">and ${whole(hidden)} more</span>`}
      </div></td>
    </tr>`;
  }

  const Levels = () => html`<section aria-labelledby="levels-title">
    <h2 id="levels-title">The ${data.subject} at each level, and what it became</h2>
    <table class="levels">
      <thead><tr><th scope="col">Step</th><th scope="col">${curve.kind === "path" ? "State" : sentence(noised)}</th><th scope="col">Probabilities</th>
        <th scope="col">${sentence(denoised)} again</th></tr></thead>
      <tbody>${levels.map((level, row) => html`<${Level} level=${level} row=${row} />`)}</tbody>
    </table>
  </section>`;

  const interval = ({ low, high }) => `${prob(low)}\u2013${prob(high)}`;

  const Windows = () => html`<section aria-labelledby="windows-title">
    <h2 id="windows-title">Windows</h2>
    ${windows.length === 0
      ? html`<p>None: no stretch of at most ${count(target.max_width, "step")} moved the outcome by ${target.delta} or more.</p>`
      : html`<ul class="notes">${windows.map((window) => html`<li>
          Steps ${window.start} to ${window.end} (from ${clocks(rowOf(window.start)).join(", ")} to
          ${" "}${clocks(rowOf(window.end)).join(", ")}): changed by ${prob(window.change)}
          <span class="interval">${interval(window)}</span>, a window with probability ${prob(window.probability)}.
        </li>`)}</ul>`}
    ${data.ends && html`<p>${line(data.ends)}</p>`}
  </section>`;

  const cost = () => [
    ["Continuations", whole(data.cost.continuations)],
    ["Network evaluations", whole(data.cost.network_evaluations)],
  ];

  const settings = () => Object.entries(data.settings)
    .filter(([, value]) => value !== null)
    .map(([name, value]) => [name.replaceAll("_", " "), inWords(value)]);

  const accuracy = () => [[
    "Error reached",
    small(data.error.reached_max),
    `The largest posterior standard deviation over all levels and labels; ${target.ends === null ? `asked for ${small(data.error.asked)}` : "the ends of the change were asked for instead"}.`,
  ]];

  const HowTo = () => html`<details class="howto">
    <summary>How to read this</summary>
    <p>
      The ${data.subject} was ${noised} to a level and ${denoised} from there, again and again, each time with
      randomness of its own, and what came out was labelled.${isText && " A masked place is shown as _."} A row of the curve is the law of these labels; after the last step it is certain.
      ${curve.log_snr
        ? "Time t is that of the Ornstein-Uhlenbeck process, and log-SNR the logarithm of signal to noise power: in both, windows of different models and schedulers can be compared."
        : "Beside the step stands the probability with which a token is masked."}
    </p>
    <p>
      A window is a shortest stretch of at most ${count(target.max_width, "step")} that moved the outcome by
      ${" "}${target.delta} or more in total variation; it is tinted. The bands hold ${percent(curve.level)} of the
      joint draws of the curve.
    </p>
  </details>`;

  const Page = () => html`
    <${Top} /><${Curve} /><${Narrowing} /><${Levels} /><${Windows} /><${Numbers} accuracy=${accuracy()} cost=${cost()} settings=${settings()} /><${HowTo} />
    <footer class="small">Written by blinkscope. This file holds all it shows and fetches nothing.</footer>`;

  document.title = `Read as ${plain(data.final_label)} \u00b7 blinkscope`;
  render(html`<${Page} />`, element("report"));

  drawCurve(series(false), { cursor: { show: false } });
})();
