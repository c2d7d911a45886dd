/* How the page of one generation moves.
 *
 * The text, the plot and the panel of forks show the same thing and follow each other: `look(i)` points all of them at
 * token i, `openToken(i)` shows its forks. The text was rendered once; pointing at a token changes classes on two
 * elements.
 */
(() => {
  "use strict";
  const { html, render } = htmPreact;
  const {
    tokens, labels, curve, windows, before, everyToken, moved, forksAt,
    element, plain, part, prob, tokenProb, count, labelName, ranked, Panel, Hint,
  } = report;
  const { series, drawCurve } = common;

  // ------------------------------------------------------------------ the plot

  const plot = makePlot();

  function makePlot() {
    const drawn = series(everyToken);
    const { of } = drawn;
    const means = new Set(of.map(([mean]) => mean));
    const tokenAt = (x) => Math.max(0, Math.min(tokens.length - 1, Math.floor(x)));
    const underCursor = (u) => tokenAt(u.posToVal(u.cursor.left, "x"));
    const u = drawCurve(drawn, {
      cursor: {
        x: false,
        y: false,
        drag: { x: true, y: false, dist: 6 },
        // Points sit on the curves (not on their bands), at the first row after the token under the cursor.
        dataIdx: (_, number, nearest, x) => (means.has(number) ? before[tokenAt(x)] + 1 : null),
        points: { size: 7, width: 1.5 },
      },
      hooks: {
        draw: [() => looked >= 0 && mark(looked)], // the axis may have moved: a resized window, a closer look
        setCursor: [(u) => (u.cursor.left >= 0 ? look(underCursor(u), { fromPlot: true }) : rest())],
        setScale: [({ scales: { x } }) => (element("reset").hidden = x.min <= 0 && x.max >= tokens.length)],
      },
    });
    const marker = document.createElement("div");
    marker.className = "marker";
    u.over.append(marker);
    let down = 0; // where the button went down: a click opens a token, a drag looks closer
    u.over.addEventListener("mousedown", (event) => (down = event.clientX));
    u.over.addEventListener("click", (event) => {
      if (Math.abs(event.clientX - down) < 5) openToken(underCursor(u), { block: "center" });
    });
    element("reset").addEventListener("click", () => u.setScale("x", { min: 0, max: tokens.length }));
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

  /** The line under the plot, and the law of every label beside its name. */
  function readOut(i) {
    const row = before[i];
    const { text: said, p, off_path: offPath } = tokens[i];
    const around = (from, to) => plain(tokens.slice(Math.max(0, from), to).map((token) => token.text).join(""));
    const context = html`<bdi class="said context" lang="">
      ${part(around(i - 4, i), -28)}<b>${part(plain(said), 0, 40)}</b>${part(around(i + 1, i + 5), 0, 28)}
    </bdi>`;
    render(html`
      <span class="where">token ${i + 1}</span>${context}<span>probability ${tokenProb(p)}</span>
      <span>off-path ${tokenProb(offPath)}</span><span>moved ${prob(moved(i))}</span>`, element("readout"));
    values.forEach((node, k) => {
      const change = `${prob(curve.mean[row][k])} \u2192 ${prob(curve.mean[row + 1][k])}`;
      render(html`${change}<small>${interval(row + 1, k)}</small>`, node);
    });
  }

  function announce(i) {
    const row = before[i] + 1;
    const { p, off_path: offPath } = tokens[i];
    const laws = ranked(curve.mean[row]).slice(0, 3);
    const law = laws.map(([k, mean]) => `${plain(labelName(k))} ${prob(mean)} (${interval(row, k)})`).join(", ");
    const forks = forksAt.get(i)?.length ?? 0;
    element("live").textContent = [
      `Token ${i + 1} of ${tokens.length}, probability ${tokenProb(p)}, off-path probability ${tokenProb(offPath)}.`,
      `The outcome moved by ${prob(moved(i))}. After it: ${law}.`,
      forks ? `${count(forks, "fork")}, press Enter.` : "No forks.",
    ].join(" ");
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
    for (const height = top(j); tokenNodes[j] && Math.abs(top(j) - height) < 4; j += step) {
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
    const numbers = plot.of[Number(key.dataset.label)];
    plot.u.batch(() => numbers.forEach((number) => plot.u.setSeries(number, { show: pressed })));
  }

  // ------------------------------------------------------------------ at first

  // The instrument stays in view; what scrolls under it must know how tall it is.
  const page = document.documentElement;
  const instrument = element("instrument");
  const measure = () => page.style.setProperty("--instrument", `${instrument.offsetHeight}px`);
  new ResizeObserver(measure).observe(instrument);

  render(html`<${Hint} />`, element("panel"));
  if (tokens.length > 0) {
    tokenNodes[0].tabIndex = 0;
    // With room beside the text the page opens on the forks of the decisive token; a small screen shows the text first.
    const roomy = matchMedia("(min-width: 68rem)").matches;
    if (roomy && forksAt.has(decisive())) openToken(decisive(), { block: null });
    rest();
  }
})();
