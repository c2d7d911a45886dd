"""Whole conversations through a tiny transformers model: positions, probabilities, activations, the context window."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from blinkscope.detection.reading import Side, mean_activation, read
from blinkscope.detection.running import running, watch
from blinkscope.detection.scores import scores
from blinkscope.detection.texts import conversation_of
from blinkscope.engines.reading import CHUNK
from blinkscope.engines.transformers import TransformersEngine
from blinkscope.errors import UserError
from blinkscope.language.engine import Context, Message, Path
from blinkscope.language.reading import RAW, Conversation, Reader
from blinkscope.language.sampling import Sampling
from tests.engines import tiny

TURNS = (
    Message("system", "Be a user."),
    Message("user", "user\nassistant"),
    Message("assistant", " ä said "),
    Message("user", "system?"),
)
LLAMA_MARKS = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
LLAMA_TEMPLATE = (
    "<|begin_of_text|>{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
    "{{ m['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)


def llama3() -> TransformersEngine:
    """A tiny model whose tokenizer knows the marks of Llama 3."""
    inner = Tokenizer(
        models.BPE(vocab={c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, merges=[])
    )
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens([AddedToken(mark, special=True) for mark in LLAMA_MARKS])
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token=LLAMA_MARKS[0], eos_token=LLAMA_MARKS[3], chat_template=LLAMA_TEMPLATE
    )
    model = tiny.model("llama", vocab_size=260, bos_token_id=256, eos_token_id=259)
    return TransformersEngine("tiny llama 3", model, tokenizer)


def said(engine: Any, conversation: Conversation, reply: str = "") -> tuple[str, str]:
    """The text of the positions that are taken for the prompt's own, and of those of the reply."""
    t = engine.transcript(conversation, reply)
    return engine.decode(t.ids[i] for i in t.prompt), engine.decode(t.ids[i] for i in t.reply)


def test_own_tokens_are_told_from_the_template_by_position() -> None:
    engine = tiny.engine()
    assert isinstance(engine, Reader)
    own = "user\nassistant ä said system?"
    assert said(engine, Conversation(TURNS), "assistant: yes") == (own, "assistant: yes")
    assert said(engine, Conversation(TURNS, "Sure"), " yes") == (own + "Sure", " yes")
    assert said(engine, Conversation("user"))[0] == "user"
    ids = engine.transcript(Conversation(TURNS), "x").ids
    assert ids == (*engine.encode(TURNS).ids, *engine.encode_reply(Context(()), "x", finished=False).tokens)


def test_a_template_that_trims_is_followed_and_one_that_rewrites_is_refused() -> None:
    assert said(llama3(), Conversation(TURNS))[0] == "user\nassistantä saidsystem?"
    shouting = tiny.TEMPLATE.replace("message['content']", "message['content'] | upper")
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tiny.tokenizer()._tokenizer, eos_token="<|end|>", chat_template=shouting
    )
    with pytest.raises(UserError, match="changes what was said"):
        TransformersEngine("tiny", tiny.model("llama"), tokenizer).transcript(Conversation(TURNS), "")


def test_a_prompt_without_template_is_all_own() -> None:
    engine = TransformersEngine("tiny", tiny.model("llama"), tiny.tokenizer(template=False))
    transcript = engine.transcript(Conversation("raw text"), "!")
    assert transcript.prompt == tuple(range(8))
    prompt = read(Side(engine), Conversation("raw text"), "!").prompt
    assert np.isnan(prompt.log_p[0])  # nothing stands before the first token
    assert np.isfinite(prompt.log_p[1:]).all()


def test_marks_that_the_model_knows_are_read_as_they_stand_and_others_as_messages() -> None:
    spelled = (
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nuser<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nSu"
    )
    conversation = conversation_of({"spelled": spelled})
    engine = llama3()
    transcript = engine.transcript(conversation, "re")
    assert transcript.ids[:4] == (256, 257, *engine._text._plain("us"))
    assert transcript.ids.count(256) == 1  # the beginning of the text is not added a second time
    assert said(engine, conversation, "re") == ("userSu", "re")
    again = engine.transcript(Conversation((Message("user", "user"),), "Su"), "re")
    assert (again.ids, again.prompt, again.reply) == (transcript.ids, transcript.prompt, transcript.reply)
    assert said(tiny.engine(), conversation, "re") == ("userSu", "re")
    assert tiny.engine().transcript(conversation, "").ids[0] == 257  # its own mark
    told = Side(engine, "Be nice.").conversation(conversation)
    assert said(engine, told) == ("userSu", "")


@pytest.mark.parametrize("kind", ["llama", "gemma2", "gpt2"])
def test_log_probabilities_are_those_of_the_unfiltered_law(kind: str) -> None:
    engine = tiny.engine(kind)
    engine_filtered = TransformersEngine(
        "filtered", engine._model, tiny.tokenizer(), sampling=Sampling(temperature=0.5, top_k=3)
    )
    ids = engine.transcript(Conversation("a" * (CHUNK + 20)), "reply").ids  # more than one chunk
    found = engine_filtered.log_probabilities(ids)
    assert np.isnan(found[0])
    score = engine.score(Path(Context(ids[:1]), ids[1:]), RAW)
    assert found[1:] == pytest.approx(np.log(score.p), abs=2e-4)
    assert list(engine.follow(ids[:50], ids[50:60])) == pytest.approx(found[50:60], abs=2e-4)


@torch.inference_mode()
def test_activations_are_the_mean_of_the_residual_stream() -> None:
    engine = tiny.engine()
    side, conversation = Side(engine), Conversation("a" * (CHUNK + 20))
    transcript = engine.transcript(conversation, "reply")
    states = engine._model(torch.tensor([transcript.ids]), output_hidden_states=True).hidden_states
    own = [*transcript.prompt, *transcript.reply]
    for layer in range(engine.layers + 1):
        found = mean_activation(side, conversation, "reply", layer)
        assert found == pytest.approx(states[layer][0, own].mean(dim=0).numpy(), abs=1e-4)
    with pytest.raises(UserError, match="layers 0"):
        mean_activation(side, conversation, "reply", engine.layers + 1)


def test_what_lies_beyond_the_context_window_is_not_read() -> None:
    engine = tiny.engine()
    start = len(engine.transcript(Conversation("x"), "").ids) - 1
    room = engine.context_window - start
    cut = read(Side(engine), Conversation("a" * (room - 3)), "reply", layer=1)
    assert len(cut.reply.log_p) == 3
    assert cut.unread == 2
    assert cut.activation is not None
    gone = read(Side(engine), Conversation("a" * 600), "reply")
    assert (len(gone.reply.log_p), gone.unread) == (0, 600 + 5 - (engine.context_window - _opening(engine)))
    values = scores(running(gone.prompt, gone.prompt), running(gone.reply, gone.reply))
    assert np.isfinite(values["prompt_aligned"])
    assert np.isnan(values["reply_ratio"])
    with pytest.raises(UserError, match="context window"):
        list(watch(Side(engine), Side(engine), Conversation("a" * (room - 3)), iter([97] * 9)))


def _opening(engine: Any) -> int:
    """Tokens of the template before what the user says."""
    return int(engine.transcript(Conversation("x"), "").prompt[0])


def test_an_empty_reply_has_a_prompt_to_score() -> None:
    found = read(Side(tiny.engine()), Conversation("hello"), "", layer=2)
    assert (found.reply.pieces, len(found.prompt.log_p), found.unread) == ((), 5, 0)


def test_a_system_prompt_of_a_side_changes_the_law_and_not_the_tokens() -> None:
    engine = tiny.engine()
    plain, told = Side(engine), Side(engine, "Be brief.")
    first, second = (read(side, Conversation("hello"), "reply") for side in (plain, told))
    assert first.prompt.pieces == second.prompt.pieces
    assert (first.reply.log_p != second.reply.log_p).all()
    with pytest.raises(UserError, match="system prompt of its own"):
        told.conversation(Conversation(TURNS))


def test_watching_a_transformers_model_is_reading_it() -> None:
    one, other = Side(tiny.engine()), Side(tiny.engine("llama", seed=1))
    whole = running(*(read(side, Conversation("hello"), "a reply").reply for side in (one, other)))
    tokens = one.engine.encode_reply(Context(()), "a reply", finished=False).tokens
    steps = list(watch(one, other, Conversation("hello"), iter(tokens)))
    assert [step.log_ratio for step in steps] == pytest.approx(whole.log_ratio.tolist(), abs=1e-3)
