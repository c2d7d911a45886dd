"""Joint draws of the whole curve from few continuations per position: a Gibbs sampler that shares data along the path.

Most steps decide nothing: another word was said, and the outcome is as open as before. So a continuation that leaves
the path at s either means the same, and its label follows pi_{s+1}, or something else, with a law of its own:

    gamma_s = (1 - h_s) pi_{s+1} + h_s delta_s,    hence    pi_s = (1 - q_s h_s) pi_{s+1} + q_s h_s delta_s

The share h_s is one of ``SHARES``, 0 among them; how often each occurs is learned from the path. delta_s has a
Dirichlet prior about the path's average law, whose total mass is the same for any number of labels.

Read backwards, this is a story of where each counted label came from: drawn from delta_s with probability h_s delta_s /
gamma_s, or else passed on to row s + 1, and there again drawn from the first law, delta_{s+1}, or passed on, until one
of the laws or the end of the path has made it. One sweep goes through the positions from the first to the last with the
labels passed on so far (the ``flow``). At each it chooses h_s, given the row after, in competition with h_s = 0; then
it draws who was made here, whereupon delta_s has a Dirichlet law, and passes on the others. Every step draws from a
conditional law of the joint posterior, or leaves it invariant, so a sweep is exact. It takes time linear in positions x
chains x labels. (Passing counts up and laws down is how deep Dirichlet models are sampled: Zhou, Cong and Chen,
"Augmentable gamma belief networks", 2016. Choosing between h_s = 0 and a law drawn from a proposal: Carlin and Chib,
"Bayesian model choice via Markov chain Monte Carlo methods", 1995.)

Many chains run side by side. They start from a particle filter that runs from the last row, which is known, to the
first: its ancestral lines alone would be few near the end of the path, and a few sweeps make them many.

Once an outcome is settled nothing undoes it, though no number of unanimous labels proves that it is. So in half of the
chains, a priori, nothing is decided after the last label that differs from the final one, and there the row is certain.

The rows move together as they should, labels that cannot occur keep probability exactly 0, and the last row is certain.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int

from blinkscope.estimate.recursion import Recursion

SHARES = np.asarray([0.0, 0.15, 0.5, 1.0])  # what h_s can be
OCCURRENCE = np.asarray([2.0, 0.7, 0.7, 0.7])  # prior of how often: parameters of a Dirichlet law
MASS = 1.5  # total mass of the prior of delta_s
CHAINS, SWEEPS, KEPT = 100, 6, 3
SHARED_BY = 4  # chains that are proposed the same law
TEMPER = 0.3
UNSEEN = 0.1  # expected number of labels below which a probability is taken for 0
TINY = 1e-300


def joint_draws(
    recursion: Recursion,
    counts: Int[np.ndarray, "steps labels"],
    final: Float[np.ndarray, " labels"],
    rng: np.random.Generator,
    chains: int = CHAINS,
    sweeps: int = SWEEPS,
    kept: int = KEPT,
) -> Float[np.ndarray, "draws rows labels"]:
    """Curves drawn from their joint posterior given the labels counted at each position, chains x kept of them.

    Positions that cannot fork copy the row after them; positions without counts take gamma_s from the prior.
    """
    open_ = np.flatnonzero(recursion.off_path > 0)
    average = path_average(recursion, counts, final)
    seen = average > 0
    path = _Path(recursion.off_path[open_], counts[open_][:, seen].astype(float), final[seen], MASS * average[seen])
    state = _start(path, chains, rng)
    flows = np.zeros_like(path.counts)
    found = []
    for sweep in range(sweeps):
        state = _sweep(path, state, flows, rng)
        if sweep >= sweeps - kept:
            found.append(path.rows(state))
    # A row before a position that cannot fork is the row after it.
    row = np.searchsorted(open_, np.arange(recursion.steps + 1))
    draws = np.concatenate(found, axis=1).transpose(1, 0, 2)
    # What no number of labels such as this could tell from 0 is 0, so that bands touch it.
    draws = np.where(draws < UNSEEN / (counts.sum() + 1), 0.0, draws)
    out = np.zeros((len(draws), recursion.steps + 1, len(final)))
    out[:, :, seen] = (draws / draws.sum(axis=2, keepdims=True))[:, row]
    return out


def spread(recursion: Recursion, draws: Float[np.ndarray, "draws rows labels"]) -> Float[np.ndarray, "steps labels"]:
    """Expected variance of one continuation at each position, E[gamma_s (1 - gamma_s)]; 0 where none can fork."""
    out = np.zeros((recursion.steps, draws.shape[2]))
    for s in np.flatnonzero(recursion.off_path > 0):
        gamma = (draws[:, s] - recursion.p[s] * draws[:, s + 1]) / recursion.off_path[s]
        gamma = np.clip(gamma, 0.0, 1.0)
        out[s] = (gamma * (1 - gamma)).mean(axis=0)
    return out


def path_average(
    recursion: Recursion, counts: Int[np.ndarray, "steps labels"], final: Float[np.ndarray, " labels"]
) -> Float[np.ndarray, " labels"]:
    """Average off-path law, positions with counts weighted by off-path probability; the end counts as one."""
    drawn = counts.sum(axis=1)
    share = counts / np.maximum(drawn, 1)[:, None]
    weight = recursion.off_path * (drawn > 0)
    return (weight @ share + final) / (weight.sum() + 1)


@dataclass(frozen=True, eq=False)
class _State:
    """The chains: which share (number in ``SHARES``) and which law delta each has at each position.

    settled: the chains in which nothing is decided any more after the last label that differs from the final one.
    log_ratio: log of prior over proposal density for shares and laws that are proposed.
    """

    kind: Int[np.ndarray, "steps chains"]
    law: Float[np.ndarray, "steps chains labels"]
    settled: Bool[np.ndarray, " chains"]
    log_ratio: Float[np.ndarray, "steps chains"]


@dataclass(frozen=True, eq=False)
class _Path:
    """What is known of the positions that can fork, the last row, and the parameters of delta's prior."""

    off_path: Float[np.ndarray, " steps"]
    counts: Float[np.ndarray, "steps labels"]
    final: Float[np.ndarray, " labels"]
    prior: Float[np.ndarray, " labels"]

    @cached_property
    def unanimous(self) -> int:
        """The first position from which on every label that was seen is the final one."""
        differing = np.flatnonzero(self.counts[:, self.final == 0].sum(axis=1))
        return int(differing[-1]) + 1 if len(differing) else 0

    def rows(self, state: _State) -> Float[np.ndarray, "rows chains labels"]:
        """The curve of every chain."""
        share = (self.off_path[:, None] * SHARES[state.kind])[:, :, None]
        out = np.empty((len(self.off_path) + 1, *state.law.shape[1:]))
        out[-1] = self.final
        for s in range(len(self.off_path) - 1, -1, -1):
            out[s] = out[s + 1] + share[s] * (state.law[s] - out[s + 1])
        return out


def _start(path: _Path, chains: int, rng: np.random.Generator) -> _State:
    """A particle filter from the last row to the first; particles that explain nothing give way to good ones."""
    steps, labels = path.counts.shape
    settled = np.arange(chains) % 2 == 0
    average = np.tile(path.prior / path.prior.sum(), (steps, 1))
    state = _proposals(path, average, np.zeros((steps, labels))).draw(chains, settled, rng)
    prior = np.log(OCCURRENCE / OCCURRENCE.sum())
    row = np.tile(path.final, (chains, 1))
    log_weight = np.zeros(chains)
    for s in reversed(range(steps)):
        own = SHARES[state.kind[s]][:, None] * (state.law[s] - row)
        same = prior[0] + _log(row) @ path.counts[s]
        other = prior[state.kind[s]] + state.log_ratio[s] + _log(row + own) @ path.counts[s]
        if s >= path.unanimous:
            # That nothing follows is certain in these chains, and no event of its own.
            same, other = np.where(settled, same - prior[0], same), np.where(settled, -np.inf, other)
        both = np.logaddexp(same, other)
        stays = np.log(rng.random(chains)) + both < same
        state.kind[s, stays] = 0
        row = np.where(stays[:, None], row, row + path.off_path[s] * own)
        log_weight = log_weight + both
        weight = np.exp(log_weight - log_weight.max())
        weight = weight / weight.sum()
        if 1 / (weight**2).sum() < chains / 2 or s == 0:
            # Only by a part of their weight: sweeps narrow a start that is too wide better than they widen one.
            parents = _systematic(weight**TEMPER / (weight**TEMPER).sum(), rng)
            settled, row = settled[parents], row[parents]
            state.kind[s:], state.law[s:] = state.kind[s:, parents], state.law[s:, parents]
            log_weight = np.zeros(chains)
    return replace(state, settled=settled)


def _sweep(path: _Path, state: _State, flows: Float[np.ndarray, "steps labels"], rng: np.random.Generator) -> _State:
    """One pass from the first position to the last that leaves the joint posterior invariant.

    Changes ``flows`` to the chains' average flows, by which the proposals of the next sweep go. Whatever does not
    depend on the flow is computed for all positions at once: rows after a position do not change before it is passed.
    """
    rows = path.rows(state)
    chains = np.arange(rows.shape[1])
    choice = _choices(path, state, rows, flows, rng)
    kind, law = choice.state.kind, choice.state.law
    flow = np.zeros(rows.shape[1:])
    for s in range(len(path.off_path)):
        flows[s] = flow.mean(axis=0)
        same = choice.same[s] + (flow * choice.log_after[s]).sum(axis=1)
        others = choice.others[s] + (flow[:, None] * choice.log_rows[s]).sum(axis=2)
        other = others[chains, kind[s] - 1] + choice.state.log_ratio[s]
        stays = np.log(rng.random(len(chains))) + np.logaddexp(same, other) < same
        kind[s, stays] = 0
        made = np.flatnonzero(~stays)
        onward = flow + path.counts[s]
        if len(made):
            kind[s, made] = _pick(others[made], rng) + 1
            after, share = rows[s + 1, made], SHARES[kind[s, made]][:, None]
            mine = _made_here(path, s, after, share * law[s, made], (1 - share) * after, flow[made], rng)
            law[s, made] = _dirichlet(path.prior + mine, rng)
            onward[made] -= mine
        flow = onward
    return choice.state


def _made_here(
    path: _Path,
    s: int,
    after: Float[np.ndarray, "made labels"],
    own: Float[np.ndarray, "made labels"],
    passed: Float[np.ndarray, "made labels"],
    flow: Float[np.ndarray, "made labels"],
    rng: np.random.Generator,
) -> Int[np.ndarray, "made labels"]:
    """How many labels, among the flow and the counts, were drawn from the position's own law."""
    q, counts = path.off_path[s], path.counts[s]
    row = (1 - q) * after + q * (own + passed)
    mine = rng.binomial(flow.astype(np.int64), np.minimum(q * own / np.maximum(row, TINY), 1))
    if counts.any():
        mine += rng.binomial(counts.astype(np.int64), np.minimum(own / np.maximum(own + passed, TINY), 1))
    return mine


@dataclass(frozen=True, eq=False)
class _Choices:
    """What a sweep chooses between at each position: share 0, or another share with the law of ``state``.

    A chain that has a share above 0 puts up that and its law, the others a proposal. same, others: log probabilities of
    a share (0, and each of the others) and of the position's counts under it. log_after, log_rows: logs of the row
    before the position under each.
    """

    state: _State
    same: Float[np.ndarray, "steps chains"]
    others: Float[np.ndarray, "steps chains shares"]
    log_after: Float[np.ndarray, "steps chains labels"]
    log_rows: Float[np.ndarray, "steps chains shares labels"]


def _choices(
    path: _Path,
    state: _State,
    rows: Float[np.ndarray, "rows chains labels"],
    flows: Float[np.ndarray, "steps labels"],
    rng: np.random.Generator,
) -> _Choices:
    after = rows[1:]
    fresh = _proposals(path, after.mean(axis=1), flows)
    proposed = fresh.draw(after.shape[1], state.settled, rng)
    free = state.kind == 0
    kind = np.where(free, proposed.kind, state.kind)
    law = np.where(free[:, :, None], proposed.law, state.law)
    candidate = _State(kind, law, state.settled, fresh.log_ratio(kind, law))
    certain = np.arange(len(after))[:, None] >= np.where(state.settled, path.unanimous, len(after))
    found = [((state.kind == k) & ~certain).sum(axis=0) for k in range(len(SHARES))]
    occurrence = rng.standard_gamma(OCCURRENCE + np.stack(found, axis=1))
    log_occurrence = _log(occurrence / occurrence.sum(axis=1, keepdims=True))
    log_after = _log(after)
    own = SHARES[1:, None] * (law - after)[:, :, None]
    log_gamma = _log(after[:, :, None] + own)
    others = log_occurrence[:, 1:] + np.einsum("sckl,sl->sck", log_gamma, path.counts)
    return _Choices(
        candidate,
        log_occurrence[:, 0] + np.einsum("scl,sl->sc", log_after, path.counts),
        np.where(certain[:, :, None], -np.inf, others),
        log_after,
        _log(after[:, :, None] + path.off_path[:, None, None, None] * own),
    )


@dataclass(frozen=True, eq=False)
class _Proposals:
    """Laws from which shares and laws are proposed, near what a position's counts and a typical flow suggest.

    probability: of each share but 0, at each position. shape: parameters of the law's Dirichlet law for each of them.
    log_norm: log of the prior's norming constant over that of the proposal.
    """

    prior: Float[np.ndarray, " labels"]
    probability: Float[np.ndarray, "steps shares"]
    shape: Float[np.ndarray, "steps shares labels"]
    log_norm: Float[np.ndarray, "steps shares"]

    def draw(self, chains: int, settled: Bool[np.ndarray, " chains"], rng: np.random.Generator) -> _State:
        """A share above 0 and a law for every chain; one law is drawn for ``SHARED_BY`` chains."""
        steps, count = len(self.shape), -(-chains // SHARED_BY)
        edge = np.cumsum(self.probability, axis=1)[:, None, :-1]
        drawn = (rng.random((steps, count, 1)) > edge).sum(axis=2)
        laws = _dirichlet(np.take_along_axis(self.shape, drawn[:, :, None], axis=1), rng)
        given = rng.permutation(np.arange(chains) % count)
        kind, law = drawn[:, given] + 1, laws[:, given]
        return _State(kind, law, settled, self.log_ratio(kind, law))

    def log_ratio(
        self, kind: Int[np.ndarray, "steps chains"], law: Float[np.ndarray, "steps chains labels"]
    ) -> Float[np.ndarray, "steps chains"]:
        """log( prior density of the law / density of kind and law under this proposal )."""
        tilt = np.einsum("scl,skl->sck", _log(law), self.prior - self.shape)
        ratio = tilt + (self.log_norm - np.log(self.probability))[:, None]
        return np.take_along_axis(ratio, kind[:, :, None] - 1, axis=2)[:, :, 0]


def _proposals(
    path: _Path, after: Float[np.ndarray, "steps labels"], flow: Float[np.ndarray, "steps labels"]
) -> _Proposals:
    """Two steps of expectation-maximisation for the law of each position and share, given typical rows and flows.

    Labels that may have come from elsewhere count for less: by the share of them that is certainly from here.
    """
    prior, share, q = path.prior, SHARES[None, 1:, None], path.off_path[:, None, None]
    counts, flow, after = path.counts[:, None], flow[:, None], after[:, None]
    law = np.broadcast_to(
        (prior + counts) / (prior.sum() + counts.sum(axis=2, keepdims=True)),
        (*q.shape[:1], len(SHARES) - 1, len(prior)),
    )
    for _ in range(2):
        own = share * law
        here = counts * own / ((1 - share) * after + own + TINY)
        passed = flow * q * own / ((1 - q * share) * after + q * own + TINY)
        law = prior + here + passed
        law = law / law.sum(axis=2, keepdims=True)
    shape = prior + share * here + q * share * passed
    log_norm = _log_norm(prior) - _log_norm(shape)
    own = share * (law - after)
    fit = np.log(OCCURRENCE[1:]) + log_norm + ((prior - shape) * _log(law)).sum(axis=2)
    fit += (counts * np.log(np.maximum(after + own, TINY)) + flow * np.log(np.maximum(after + q * own, TINY))).sum(
        axis=2
    )
    probability = np.exp(fit - fit.max(axis=1, keepdims=True))
    probability /= probability.sum(axis=1, keepdims=True)
    # Some of each, so that no weight is large.
    return _Proposals(prior, 0.7 * probability + 0.3 / (len(SHARES) - 1), shape, log_norm)


def _log(x: Float[np.ndarray, " *shape"]) -> Float[np.ndarray, " *shape"]:
    return np.log(np.maximum(x, TINY))


def _dirichlet(shape: Float[np.ndarray, "*n labels"], rng: np.random.Generator) -> Float[np.ndarray, "*n labels"]:
    gamma = np.maximum(rng.standard_gamma(shape), TINY)
    return gamma / gamma.sum(axis=-1, keepdims=True)


def _log_norm(shape: Float[np.ndarray, "*n labels"]) -> Float[np.ndarray, " *n"]:
    """log of the norming constant of Dirichlet laws."""
    from scipy.special import gammaln

    return np.asarray(gammaln(shape.sum(axis=-1)) - gammaln(shape).sum(axis=-1))


def _pick(log_weight: Float[np.ndarray, "n options"], rng: np.random.Generator) -> Int[np.ndarray, " n"]:
    """One option of each row, with probability in proportion to its weight."""
    total = np.cumsum(np.exp(log_weight - log_weight.max(axis=1, keepdims=True)), axis=1)
    return (rng.random((len(total), 1)) * total[:, -1:] > total[:, :-1]).sum(axis=1)


def _systematic(weight: Float[np.ndarray, " particles"], rng: np.random.Generator) -> Int[np.ndarray, " particles"]:
    size = len(weight)
    points = (np.arange(size) + rng.random()) / size
    return np.minimum(np.searchsorted(np.cumsum(weight), points), size - 1)
