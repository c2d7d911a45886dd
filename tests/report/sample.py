"""Results to make reports of: a realistic one, a very long one, and ones made of hostile text.

Every trace is consistent: its curve follows from its off-path laws by the divergence decomposition, its joint draws
from Dirichlet draws of those laws, and its forks carry labelled continuations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from blinkscope.estimate.source import JSON, Draw
from blinkscope.estimate.trace import Cost, Step, Target, Trace
from blinkscope.posterior import Posterior

JOINT_DRAWS = 200
Write = Callable[[int, str, str, np.random.Generator], str]  # position, fork, label -> the continuation's text


def build(
    steps: Sequence[Step],
    labels: Sequence[str],
    off_path: np.ndarray,
    forks: Mapping[int, Sequence[tuple[str, float]]],
    write: Write,
    *,
    prompt: JSON,
    per_position: int = 24,
    final: int = 0,
    truth: bool = False,
    seed: int = 0,
    target: Target | None = None,
    notes: tuple[str, ...] = (),
) -> Trace:
    """A trace whose off-path label law at position s is ``off_path[s]`` (shape (N, K)) and whose forks are given."""
    rng = np.random.default_rng(seed)
    q = np.array([step.off_path for step in steps])
    counts = np.stack([rng.multinomial(per_position if s in forks else 0, law) for s, law in enumerate(off_path)])
    seen = np.where(counts.sum(1, keepdims=True) > 0, counts / np.maximum(counts.sum(1, keepdims=True), 1), off_path)
    mean = curve(seen[None], q, final)[0]
    laws = np.stack([rng.dirichlet(counts[s] + 0.5 * seen[s] + 1e-3, JOINT_DRAWS) for s in range(len(steps))], axis=1)
    draws = tuple(draw for s in sorted(forks) for draw in off_path_draws(s, counts[s], forks[s], labels, write, rng))
    generated = int(sum(draw.cost for draw in draws))
    return Trace(
        settings={
            "prompt": prompt,
            "system": None,
            "prefill": "",
            "model": "smollm2",
            "feature": "choice",
            "ask": None,
            "method": "divergence",
            "sampling": {"temperature": 0.6, "top_k": 0, "top_p": 0.9, "min_p": 0.0, "max_new_tokens": 256, "stop": []},
            "seed": seed,
        },
        text="".join(step.text for step in steps),
        steps=tuple(steps),
        final_label=labels[final],
        posterior=Posterior(np.arange(len(steps) + 1.0), tuple(labels), mean, curve(laws, q, final)),
        draws=draws,
        target=target or Target(),
        status="complete",
        cost=Cost(len(draws), generated, len(steps), generated * 9 // 10, seconds=71.3, model_seconds=68.9),
        skipped=np.full(len(steps) + 1, 0.0041),
        truth=curve(off_path[None], q, final)[0] if truth else None,
        notes=notes,
    )


def curve(laws: np.ndarray, q: np.ndarray, final: int) -> np.ndarray:
    """Curves (draws, N + 1, K) from off-path laws (draws, N, K): pi_s = p_s pi_{s+1} + q_s gamma_s."""
    rows = [np.broadcast_to(np.eye(laws.shape[2])[final], (len(laws), laws.shape[2]))]
    for s in range(len(q) - 1, -1, -1):
        rows.append((1 - q[s]) * rows[-1] + q[s] * laws[:, s])
    return np.stack(rows[::-1], axis=1)


def off_path_draws(
    s: int,
    counts: np.ndarray,
    forks: Sequence[tuple[str, float]],
    labels: Sequence[str],
    write: Write,
    rng: np.random.Generator,
) -> list[Draw]:
    outcomes = rng.permutation(np.repeat(np.arange(len(labels)), counts))
    weights = np.array([p for _, p in forks])
    chosen = rng.choice(len(forks), size=len(outcomes), p=weights / weights.sum())
    draws = []
    for replicate, (k, fork) in enumerate(zip(outcomes, chosen, strict=True)):
        token, p = forks[fork]
        text = write(s, token, labels[k], rng)
        payload: dict[str, JSON] = {"text": text, "finish": "stop", "p": p}
        draws.append(Draw(s, replicate, labels[k], cost=float(len(text.split())), fork=token, payload=payload))
    return draws


# ---------------------------------------------------------------- cat or dog

CHOICE_PROMPT = (
    "I live alone in a small flat on the third floor. Should I get a cat or a dog? "
    "Answer in two or three sentences and finish with 'My choice: Cat' or 'My choice: Dog'."
)
# token, probability, alternatives with probability and P(Dog) among what follows
CHOICE: list[tuple[str, float, list[tuple[str, float]], float]] = [
    ("For", 0.52, [("A", 0.21), ("I", 0.15), ("If", 0.12)], 0.45),
    (" a", 0.61, [(" someone", 0.27), (" your", 0.12)], 0.40),
    (" small", 0.93, [(" third", 0.07)], 0.40),
    (" flat", 0.88, [(" apartment", 0.12)], 0.46),
    (",", 0.79, [(" on", 0.13), (" where", 0.08)], 0.44),
    (" size", 0.18, [(" it", 0.34), (" both", 0.29), (" the", 0.19)], 0.38),
    (" matters", 0.74, [(" is", 0.26)], 0.42),
    (" less", 0.44, [(" a", 0.31), (",", 0.25)], 0.33),
    (" than", 1.0, [], 0.0),
    (" temper", 0.36, [(" the", 0.28), (" how", 0.22), (" routine", 0.14)], 0.47),
    ("ament", 1.0, [], 0.0),
    (".", 0.83, [(" and", 0.17)], 0.44),
    (" Dogs", 0.41, [(" Cats", 0.48), (" A", 0.11)], 0.05),
    (" are", 0.72, [(" need", 0.16), (" can", 0.12)], 0.86),
    (" loyal", 0.47, [(" social", 0.30), (" great", 0.23)], 0.94),
    (" and", 0.85, [(",", 0.15)], 0.96),
    (" affection", 0.66, [(" friendly", 0.34)], 0.97),
    ("ate", 1.0, [], 0.0),
    (",", 0.71, [(" companions", 0.29)], 0.97),
    (" and", 0.90, [(" but", 0.10)], 0.71),
    (" a", 0.46, [(" they", 0.54)], 0.93),
    (" calm", 0.38, [(" small", 0.41), (" dog", 0.21)], 0.97),
    (" breed", 0.81, [(" dog", 0.19)], 1.0),
    (" can", 0.57, [(" will", 0.25), (" is", 0.18)], 0.98),
    (" be", 0.69, [(" live", 0.31)], 1.0),
    (" happy", 0.62, [(" content", 0.22), (" comfortable", 0.16)], 1.0),
    (" with", 0.44, [(" in", 0.56)], 1.0),
    (" two", 0.51, [(" a", 0.35), (" daily", 0.14)], 1.0),
    (" walks", 0.92, [(" short", 0.08)], 1.0),
    (" a", 0.77, [(" each", 0.23)], 1.0),
    (" day", 1.0, [], 0.0),
    (".", 0.86, [(",", 0.14)], 0.96),
    (" You", 0.24, [(" A", 0.36), (" However", 0.22), (" My", 0.18)], 0.83),
    (" will", 0.58, [("'ll", 0.27), (" also", 0.15)], 1.0),
    (" never", 0.35, [(" also", 0.65)], 1.0),
    (" come", 0.64, [(" be", 0.36)], 1.0),
    (" home", 0.97, [(" back", 0.03)], 1.0),
    (" to", 1.0, [], 0.0),
    (" an", 0.89, [(" a", 0.11)], 1.0),
    (" empty", 1.0, [], 0.0),
    (" room", 0.59, [(" flat", 0.41)], 1.0),
    (".\n\n", 0.81, [(".", 0.19)], 1.0),
    ("My choice:", 0.98, [("**", 0.02)], 1.0),
    (" Dog", 0.991, [(" A", 0.009)], 1.0),
    ("<|im_end|>", 1.0, [], 0.0),
]
ENDINGS = {
    "Dog": [
        " and a dog will get you out of the house every single day, which is good for both of you",
        " so a calm, older dog that likes to sleep would settle in quickly",
        " but with two walks a day even a third-floor flat is enough for a small dog",
    ],
    "Cat": [
        " and a cat needs no garden, no lift and no walk at seven in the morning",
        " so an animal that is content on a window sill will be the happier one",
        " because cats look after themselves while you are at work and take up very little room",
    ],
    "(unparsed)": [" and honestly both are wonderful; it is entirely up to you and to your landlord"],
}


def choice_text(position: int, fork: str, label: str, rng: np.random.Generator) -> str:
    middle = ENDINGS[label][rng.integers(len(ENDINGS[label]))]
    more = " Think of the stairs, too." if rng.random() < 0.3 else ""
    last = "" if label == "(unparsed)" else f"\n\nMy choice: {label}"
    return f"{fork}{middle}.{more}{last}"


def realistic(*, truth: bool = False) -> Trace:
    """45 tokens, one clear window: P(Dog) jumps at the word " Dogs"."""
    steps = [Step(text, p, round(1 - p, 6), 1000 + i) for i, (text, p, _, _) in enumerate(CHOICE)]
    unparsed = 0.02
    off_path = np.array([[dog * (1 - unparsed), (1 - dog) * (1 - unparsed), unparsed] for _, _, _, dog in CHOICE])
    off_path[43] = [0.0, 0.0, 1.0]
    forks = {s: alternatives for s, (_, _, alternatives, _) in enumerate(CHOICE) if alternatives}
    return build(
        steps,
        ("Dog", "Cat", "(unparsed)"),
        off_path,
        forks,
        choice_text,
        prompt=CHOICE_PROMPT,
        per_position=40,
        truth=truth,
        target=Target(error=0.1),
        notes=("Four positions were left out: together they can move no row of the curve by more than 0.0041.",),
    )


def blank(text: str) -> Trace:
    """The same generation, decided at a token of white space, or of no text at all, in place of its word."""
    trace = realistic()
    steps = tuple(replace(step, text=text) if step.text == " Dogs" else step for step in trace.steps)
    return replace(trace, steps=steps, text="".join(step.text for step in steps))


def grid() -> Trace:
    """The same generation, looked at in six places only, where the model went on freely."""
    trace = realistic()
    rows = np.array([0, 9, 18, 27, 36, 45])
    posterior = replace(trace.posterior, index=rows.astype(float), mean=trace.curve[rows], draws=None)
    free = [draw for draw in trace.draws if draw.stratum in rows]
    without_p = (replace(draw, payload={**draw.payload, "p": None}) for draw in free)
    return replace(trace, posterior=posterior, draws=tuple(without_p))


def undecided() -> Trace:
    """No token moves the outcome far, although it is open at the start: there is no window."""
    n = 40
    steps = [Step(f" word{i}", 0.9, 0.1) for i in range(n)]
    off_path = np.tile([0.2, 0.8], (n, 1))
    forks = {s: [(" other", 0.1)] for s in range(n)}
    return build(steps, ("yes", "no"), off_path, forks, lambda s, f, label, rng: f"{f} so {label}", prompt="Yes or no?")


def decided() -> Trace:
    """A greedy sampler: no token had an alternative."""
    steps = [Step(text, 1.0, 0.0) for text in ("Paris", " it", " is", ".")]
    return build(steps, ("Paris",), np.ones((4, 1)), {}, lambda *_: "", prompt="The capital of France?")


# ---------------------------------------------------------------- long

TEXT = (
    "the number of sides that meet at each corner is three so we count twelve edges and then divide by two which gives "
    "six faces wait let me check that again because each edge belongs to exactly two faces and not to one"
)
WORDS = TEXT.split(" ")


def long(tokens: int = 2000, continuations: int = 5000, labels: int = 12, text: str = "") -> Trace:
    """A long chain of thought with several windows, many labels and long continuations."""
    rng = np.random.default_rng(7)
    names = [str(n) for n in rng.choice(999, labels - 2, replace=False)] + ["(other)", "(truncated)"]
    p = np.where(rng.random(tokens) < 0.4, 1.0, rng.uniform(0.55, 1, tokens) ** 0.02)
    off_path = np.empty((tokens, labels))
    regimes = np.sort(rng.choice(np.arange(tokens // 10, tokens * 9 // 10), 4, replace=False))
    for regime in range(5):
        here = np.arange(tokens)[(np.searchsorted(regimes, np.arange(tokens), side="right")) == regime]
        off_path[here] = rng.dirichlet(np.full(labels, 0.25) + 6.0 * (np.arange(labels) == (5 - regime) % 7))
    p[regimes - 1] = rng.uniform(0.25, 0.5, 4)
    words = [" " + str(rng.choice(WORDS)) for _ in range(tokens)]
    words = [w + ("." if i % 17 == 16 else "") + ("\n\n" if i % 120 == 119 else "") for i, w in enumerate(words)]
    steps = [Step(w, float(x), float(1 - x), i) for i, (w, x) in enumerate(zip(words, p, strict=True))]
    open_ = [s for s in range(tokens) if p[s] < 1]
    per_position = max(1, continuations // len(open_))
    shares = (0.6, 0.3, 0.1)
    forks = {s: [(f" {WORDS[s % 5 + k]}", float(1 - p[s]) * share) for k, share in enumerate(shares)] for s in open_}
    filler = text or TEXT + ". "

    def write(position: int, fork: str, label: str, rng: np.random.Generator) -> str:
        return f"{fork} {(filler * 60)[: 900 + position]} The answer is {label}."

    return build(
        steps, names, off_path, forks, write, prompt="How many faces? " * 60, per_position=per_position, seed=3
    )


# ---------------------------------------------------------------- hostile

HOSTILE = (
    "</script><script>window.__owned = 1; alert(1)</script>",
    "<!--<script>",
    "<img src=x onerror=\"window.__owned = 2; alert('img')\">",
    "<svg onload=alert(3)><iframe src='http://example.invalid/a'></iframe>",
    "javascript:alert(4)",
    "<link rel=stylesheet href=http://example.invalid/b.css><style>@import 'http://example.invalid/c.css';</style>",
    "red; background: url(http://example.invalid/d.png)",
    '"><style>* { display: none }</style>{{scripts}}{{data}}${alert(5)}',
    "\u202eevil\u202c\u2066isolated\u2069",
    "\x1b[31mred\x1b[0m\x00\x07\x08\x7f\x9b",
    "lone \ud800 and \udfff surrogates",
    "zero\u200bwidth\ufeff and tags \U000e0041\U000e0042",
    "x" * 4000,
    "👩\u200d🔬 family 👨\u200d👩\u200d👧 flag 🇪🇺",
    "שלום עולם",
    "مرحبا بالعالم",
    "line\u2028separator\u2029paragraph",
    "__proto__",
    "constructor",
    "  \n\n\t",
    "&lt;b&gt;&amp;amp; &#x3c;script&#x3e;",
)


def hostile() -> Trace:
    """Every text that comes from outside is hostile: prompt, settings, tokens, forks, labels, texts and notes."""
    n = len(HOSTILE)
    steps = [Step(text, 0.7, 0.3) for text in HOSTILE]
    labels = (*HOSTILE[:11], "(other)")
    off_path = np.random.default_rng(0).dirichlet(np.ones(len(labels)), n)
    forks = {s: [(HOSTILE[(s + 1) % n], 0.2), (HOSTILE[(s + 5) % n], 0.1)] for s in range(n)}
    return build(
        steps,
        labels,
        off_path,
        forks,
        lambda s, fork, label, rng: fork + HOSTILE[(s + 3) % n] * 30,
        prompt=[
            {"role": "system", "content": "".join(HOSTILE)},
            {"role": "user", "content": HOSTILE[0] + HOSTILE[2] + HOSTILE[8]},
        ],
        notes=HOSTILE,
    )
