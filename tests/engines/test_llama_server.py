"""llama.cpp's own server on the embedded model's file, beside the same file in this process.

The server multiplies 4-bit weights with 8-bit activations, this process unpacked weights with float32: the tolerances
are that quantisation error, about three times over (measured: root mean square of the change of words' log-probability
0.07, largest change of a probability 0.08; the end of a turn, whose embedding is large, moves by up to 0.8).
"""

from __future__ import annotations

import numpy as np
import pytest

from blinkscope.engines import open_engine
from blinkscope.engines.smollm2 import find_weights, unpacked_folder
from blinkscope.language.engine import Engine, Job, Path
from blinkscope.language.sampling import Sampling

pytestmark = pytest.mark.model

QUESTION = "Is a whale a fish? Answer yes or no, in one sentence."
REPLY = "No, a whale is not a fish."
LAW = Sampling(temperature=1.0, top_k=40, max_new_tokens=12)


@pytest.fixture(scope="module")
def served(llama_server) -> Engine:
    return open_engine(llama_server.url)


def test_words_become_the_same_tokens(served: Engine, smollm2: Engine) -> None:
    context = served.encode(QUESTION, prefill="Well,")
    assert context == smollm2.encode(QUESTION, prefill="Well,")
    text = " A cat 😀 costs 'little', é.\n1. Nice"
    mine, theirs = (e.encode_reply(context, text, finished=True) for e in (served, smollm2))
    assert mine == theirs
    assert served.decode(mine.tokens) == text
    assert served.pieces(mine.tokens) == smollm2.pieces(mine.tokens)
    assert served.spell(context) == smollm2.spell(context)
    assert served.follow_up(mine, "So?") == smollm2.follow_up(mine, "So?")


def test_probabilities_agree_within_quantisation_error(served: Engine, smollm2: Engine) -> None:
    path = smollm2.encode_reply(smollm2.encode(QUESTION), REPLY, finished=True)
    mine, theirs = served.score(path, LAW), smollm2.score(path, LAW)
    both = (mine.p > 0) & (theirs.p > 0) & (np.arange(len(path.tokens)) < len(path.tokens) - 1)
    assert both.mean() > 0.8
    assert np.sqrt(np.mean(np.log(mine.p[both] / theirs.p[both]) ** 2)) < 0.25
    assert np.abs(mine.p - theirs.p).max() < 0.25
    assert mine.notes == ()
    np.testing.assert_allclose(mine.p + mine.off_path, 1, atol=1e-9)
    for ours, other in zip(mine.alternatives, theirs.alternatives, strict=True):
        # Total variation between the laws of what else could have stood there.
        ids = np.union1d(ours.ids, other.ids)
        laws = [np.array([float(a.p[a.ids == id_].sum()) for id_ in ids]) for a in (ours, other)]
        assert np.abs(laws[0] - laws[1]).sum() / 2 < 0.25


def test_label_laws_agree_within_statistical_and_quantisation_error(served: Engine, smollm2: Engine) -> None:
    count, one = 240, Sampling(temperature=1.0, top_k=40, max_new_tokens=1)
    start = Path(smollm2.encode(QUESTION), ())
    jobs = [Job((i,), start, 0, (), (5, i)) for i in range(count)]
    said = [served.decode(done.tokens) for done in served.continue_(jobs, one, 7)]
    path = smollm2.encode_reply(start.context, said[0], finished=False)
    law = smollm2.score(path, one)
    for word in {said[0], "No", "Yes", "The"}:
        ids = smollm2.encode_reply(start.context, word, finished=False).tokens
        listed = law.alternatives[0]
        p = law.p[0] if ids == path.tokens[:1] else float(listed.p[listed.ids == ids[0]].sum())
        # 5.5 standard deviations, 4e-8 two-sided, on top of the quantisation error.
        assert abs(said.count(word) / count - p) < 5.5 * np.sqrt(max(p * (1 - p), 0.01) / count) + 0.08


def test_the_server_ends_a_reply_at_a_stop_text(served: Engine) -> None:
    start = Path(served.encode("Count from one to ten in words."), ())
    free = Sampling(temperature=0, max_new_tokens=10)
    (whole,) = served.continue_([Job((), start, 0)], free, 0)
    text = served.decode(whole.tokens)
    stop = text.split()[2]
    (cut,) = served.continue_([Job((), start, 0)], Sampling(temperature=0, max_new_tokens=10, stop=(stop,)), 0)
    assert cut.finish == "stop"
    assert cut.tokens == whole.tokens[: len(cut.tokens)]
    assert stop in served.decode(cut.tokens)
    assert stop not in served.decode(cut.tokens[:-1])


def test_a_tokenizer_on_this_side_agrees_with_the_servers(llama_server, served: Engine, smollm2: Engine) -> None:
    folder = unpacked_folder(find_weights())
    engine = open_engine(f"{llama_server.url}?tokenizer={folder}")
    context = engine.encode(QUESTION)
    assert context == served.encode(QUESTION)
    path = engine.encode_reply(context, REPLY, finished=True)
    assert path == served.encode_reply(context, REPLY, finished=True)
    assert engine.pieces(path.tokens) == served.pieces(path.tokens)
    assert engine.decode(path.tokens) == REPLY
    assert engine.follow_up(path, "So?") == served.follow_up(path, "So?")
