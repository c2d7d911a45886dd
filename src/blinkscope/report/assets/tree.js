/* A tree of labels, from what is open on the left to what is settled on the right. */
const trees = (() => {
  "use strict";
  const { html } = htmPreact;
  const { line, plain, clipped, small, slot } = common;
  const WIDTH = 420, LEFT = 22, NAMES = 122, ROW = 21, TOP = 14, FOOT = 42, APART = 26;

  /** Leaves one below the other, every other node in the middle of its children. */
  function placed(root) {
    let rows = 0;
    const place = (node) => {
      const children = node.children.map(place);
      const y = children.length ? (children[0].y + children.at(-1).y) / 2 : TOP + ROW * rows++;
      return { ...node, children, y };
    };
    return { tree: place(root), height: () => TOP + ROW * rows };
  }

  const every = (node) => [node, ...node.children.flatMap(every)];
  const dressed = (node) => (node.k === null ? "node" : `node label-${slot(node.k)}`);

  function Node({ node, from, x, last }) {
    const at = x(node.at), leaf = node.children.length === 0;
    const words = leaf ? `${plain(node.name)}: from ${small(node.at)} on` : `${plain(node.name)} until ${small(node.at)}`;
    return html`<g class=${dressed(node)}>
      <path d=${`M${from} ${node.y}H${at}`} />
      ${!leaf && html`<path d=${`M${at} ${node.children[0].y}V${node.children.at(-1).y}`} />`}
      ${leaf && html`<path class="settled" d=${`M${at} ${node.y}H${x(last)}`} />
        <text x=${x(last) + 8} y=${node.y + 4}>${line(clipped(node.name, 16))}</text>`}
      <circle cx=${at} cy=${node.y} r=${leaf ? 4 : 2.5}><title>${words}</title></circle>
      ${node.children.map((child) => html`<${Node} node=${child} from=${at} x=${x} last=${last} />`)}
    </g>`;
  }

  /** `spans` are windows, tinted as everywhere. */
  function Tree({ tree: { axis, last, root }, spans = [] }) {
    const { tree, height } = placed(root);
    const bottom = height();
    const x = (at) => LEFT + (at / last) * (WIDTH - LEFT - NAMES);
    // The places where something happens, as far as there is room for their numbers.
    const ticks = [...new Set([last, 0, ...every(tree).map((node) => node.at)])]
      .reduce((kept, at) => (kept.some((other) => Math.abs(x(other) - x(at)) < APART) ? kept : [...kept, at]), []);
    const leaves = every(tree).filter((node) => node.children.length === 0);
    const words = leaves.map((leaf) => `${plain(leaf.name)} from ${small(leaf.at)} on`).join(", ");
    return html`<svg class="tree" viewBox=${`0 0 ${WIDTH} ${bottom + FOOT - ROW / 2}`} role="img" aria-label=${`Tree of labels by ${axis}: ${words}`}>
      ${spans.map(({ start, end }) => html`<rect class="span" x=${x(start)} width=${Math.max(2, x(end) - x(start))} y="2" height=${bottom - 6} />`)}
      ${ticks.map((at) => html`<line class="grid" x1=${x(at)} x2=${x(at)} y1="2" y2=${bottom - 4} />
        <text x=${x(at)} y=${bottom + 10} text-anchor="middle">${small(at)}</text>`)}
      <text x=${(LEFT + x(last)) / 2} y=${bottom + 27} text-anchor="middle">${line(axis)}</text>
      <${Node} node=${tree} from=${LEFT - 12} x=${x} last=${last} />
    </svg>`;
  }

  return { Tree };
})();
