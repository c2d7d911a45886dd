"""The transformers engine against the model's own full forward pass, on tiny models of every kind of attention."""

from __future__ import annotations

import gc
import json
import weakref
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import transformers

from blinkscope import engines
from blinkscope.cli.main import main
from blinkscope.engines import engine_of, open_engine
from blinkscope.engines.key_values import ROOM, RowKeyValues
from blinkscope.engines.reading import CHUNK
from blinkscope.engines.transformers import TransformersEngine
from blinkscope.engines.weights import local_digest
from blinkscope.errors import EngineError, MissingExtra, UserError
from blinkscope.language.engine import Ask, Completion, Context, Job, Message, Path
from blinkscope.language.sampling import Sampling
from blinkscope.session import locate
from tests.engines import tiny, tiny_gguf

END = 258


def random_path(engine: TransformersEngine, prompt: str, length: int, seed: int = 0) -> Path:
    tokens = np.random.default_rng(seed).integers(0, 250, length)
    return Path(engine.encode(prompt), tuple(tokens.tolist()))


def mixed_jobs(engine: TransformersEngine, count: int = 24) -> list[Job]:
    """Two paths, all positions, some with forced tokens: prefixes of very different lengths."""
    paths = (random_path(engine, "hi", 40), random_path(engine, "a much longer question than the other one", 30, 1))
    forced = ((), (3,), (4, 5))
    return [Job((i,), paths[i % 2], (7 * i) % 30, forced[i % 3], (i,)) for i in range(count)]


def full_law(model: Any, ids: list[int]) -> np.ndarray:
    """Law of the next token after every prefix, by one plain forward pass without any cache."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
    return torch.log_softmax(logits.double(), dim=-1).exp().numpy()


@pytest.mark.parametrize("kind", tiny.KINDS)
def test_rows_that_come_and_go_see_exactly_their_own_past(kind):
    model = tiny.model(kind)
    engine = TransformersEngine("tiny", model, tiny.tokenizer(), batch_rows=5)
    jobs = mixed_jobs(engine)
    done = list(engine.continue_(jobs, Sampling(max_new_tokens=45), 1))
    assert sorted(d.job.key for d in done) == sorted(job.key for job in jobs)
    assert sum(d.generated for d in done) > 5 * ROOM  # the storage was moved at least once
    for d in done:
        before = [*d.job.path.context.ids, *d.job.path.tokens[: d.job.kept]]
        law = full_law(model, [*before, *d.tokens])
        free = range(len(d.job.forced), len(d.tokens))
        right = [law[len(before) + i - 1, d.tokens[i]] for i in free]
        np.testing.assert_allclose([d.p[i] for i in free], right, rtol=1e-4)
        assert np.isnan(d.p[: len(d.job.forced)]).all()


@pytest.mark.parametrize("kind", tiny.KINDS)
def test_score_is_the_law_of_one_plain_pass(kind):
    model = tiny.model(kind)
    engine = TransformersEngine("tiny", model, tiny.tokenizer())
    path = random_path(engine, "hello", CHUNK + 100)  # more than one chunk
    law = full_law(model, [*path.context.ids, *path.tokens])[len(path.context.ids) - 1 : -1]
    score = engine.score(path, Sampling())
    right = law[np.arange(len(path.tokens)), path.tokens]
    np.testing.assert_allclose(score.p, right, rtol=1e-4)
    np.testing.assert_allclose(score.off_path, 1 - right, rtol=1e-4)
    for listed, row in zip(score.alternatives, law, strict=True):
        np.testing.assert_allclose(listed.p, row[listed.ids], rtol=1e-4)


def test_tokens_of_a_row_do_not_depend_on_the_other_rows():
    # In double precision no uniform comes near enough to a step of the distribution function to be moved across it.
    model = tiny.model("llama").double()

    def tokens(rows: int, jobs: list[Job]) -> dict[tuple[int, ...], tuple[int, ...]]:
        engine = TransformersEngine("tiny", model, tiny.tokenizer(), batch_rows=rows)
        return {d.job.key: d.tokens for d in engine.continue_(jobs, Sampling(max_new_tokens=34), 1)}

    jobs = mixed_jobs(tiny.engine())
    alone = tokens(1, jobs)
    assert tokens(4, jobs) == alone
    assert tokens(50, jobs[::-1]) == alone
    assert tokens(3, jobs[5:9]) == {job.key: alone[job.key] for job in jobs[5:9]}


def test_prefix_is_read_once():
    model = tiny.model("llama")
    engine = TransformersEngine("tiny", model, tiny.tokenizer(), batch_rows=5)
    read: list[int] = []
    hook = model.register_forward_pre_hook(lambda m, a, k: read.append(k["input_ids"].numel()), with_kwargs=True)
    path = random_path(engine, "hi", 40)
    engine.score(path, Sampling())
    assert sum(read) == len(path.context.ids) + 40
    read.clear()
    done = list(engine.continue_([Job((s,), path, s, (5,), (s,)) for s in range(40)], Sampling(max_new_tokens=41), 1))
    # One forced token is read by each row and each drawn token but the last: what is fed is what is drawn.
    assert sum(read) == sum(d.generated for d in done)
    hook.remove()


def test_batch_is_bounded_by_bytes():
    model = tiny.model("llama")
    per_token = 2 * 3 * 2 * 8 * 4  # keys and values, layers, heads, width, bytes of a float
    path = random_path(tiny.engine(), "hi", 10)
    longest = len(path.context.ids) + 20
    engine = TransformersEngine("tiny", model, tiny.tokenizer(), batch_bytes=3 * per_token * (longest + ROOM))
    rows: list[int] = []
    hook = model.register_forward_pre_hook(lambda m, a, k: rows.append(k["input_ids"].shape[0]), with_kwargs=True)
    done = list(engine.continue_([Job((i,), path, i, (), (i,)) for i in range(9)], Sampling(max_new_tokens=20), 1))
    hook.remove()
    assert (len(done), max(rows[1:])) == (9, 3)


@pytest.mark.parametrize(
    ("job", "sampling"),
    [
        (Job((), Path(Context((1,)), ()), 0, (70, 71)), Sampling(max_new_tokens=7)),
        (Job((), Path(Context((1,)), ()), 0, (70, END)), Sampling(max_new_tokens=7)),
        (Job((), Path(Context((1,)), ()), 3), Sampling(max_new_tokens=30, stop=("a", "e", "i", "o", "u"))),
    ],
)
def test_answer_is_what_the_model_says_to_the_whole_conversation(job, sampling):
    engine = tiny.engine()
    path = random_path(engine, "hi", 5)
    question = engine.follow_up(path, "Yes or no?")
    job = replace(job, path=path, ask=Ask(question, 6))
    (done,) = engine.continue_([job], sampling, 3)
    reply = (*path.tokens[: job.kept], *done.tokens)
    spoken = reply[:-1] if reply[-1] == END else reply
    everything = Path(Context((*path.context.ids, *spoken, *question)), ())
    (again,) = engine.continue_([Job((), everything, 0)], Sampling(temperature=0, max_new_tokens=6), 0)
    assert done.answer == engine.decode(again.tokens)
    assert done.generated == len(done.tokens) - len(job.forced) + len(again.tokens)


def test_greedy_takes_the_most_probable_token():
    model = tiny.model("llama")
    engine = engine_of(model, tiny.tokenizer())
    sampling = Sampling(temperature=0, max_new_tokens=20)
    context = engine.encode("hello")
    (done,) = engine.continue_([Job((), Path(context, ()), 0)], sampling, 0)
    law = full_law(model, [*context.ids, *done.tokens])[len(context.ids) - 1 : -1]
    assert done.tokens == tuple(law.argmax(axis=1))
    score = engine.score(Path(context, done.tokens), sampling)
    assert (score.p == 1).all()
    assert (score.off_path == 0).all()
    assert all(len(listed.ids) == 0 for listed in score.alternatives)


def test_model_in_memory_keeps_its_hooks():
    model = tiny.model("llama")
    path = random_path(tiny.engine(), "hi", 20)
    plain = engine_of(model, tiny.tokenizer()).score(path, Sampling())
    steering = torch.randn(32, generator=torch.Generator().manual_seed(0))
    hook = model.model.layers[1].register_forward_hook(lambda m, a, output: output + steering)
    engine = engine_of(model, tiny.tokenizer())
    steered = engine.score(path, Sampling())
    assert np.abs(steered.p - plain.p).max() > 0.01
    law = full_law(model, [*path.context.ids, *path.tokens])[len(path.context.ids) - 1 : -1]
    np.testing.assert_allclose(steered.p, law[np.arange(20), path.tokens], rtol=1e-4)
    (done,) = engine.continue_([Job((), path, 9)], Sampling(max_new_tokens=18), 0)
    again = engine.score(replace(path, tokens=(*path.tokens[:9], *done.tokens)), Sampling())
    np.testing.assert_allclose(done.p, again.p[9:], rtol=1e-4)
    hook.remove()


def test_stopping_early_frees_the_batch_and_leaves_gradients_alone(monkeypatch):
    engine = tiny.engine(batch_rows=4)
    batches: weakref.WeakSet[RowKeyValues] = weakref.WeakSet()
    advance = RowKeyValues.advance
    monkeypatch.setattr(RowKeyValues, "advance", lambda batch: (batches.add(batch), advance(batch)))
    running = engine.continue_(mixed_jobs(engine), Sampling(max_new_tokens=40), 1)
    assert isinstance(next(running), Completion)
    assert len(batches) == 1
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()
    running.close()  # type: ignore[attr-defined]
    gc.collect()
    assert len(batches) == 0


def test_tokens_the_model_cannot_hold_are_refused_with_numbers():
    engine = tiny.engine()
    path = Path(engine.encode("hi"), ())
    context = len(path.context.ids)
    with pytest.raises(UserError, match=f"{context + 510}.*512"):
        list(engine.continue_([Job((), path, 0)], Sampling(max_new_tokens=510), 0))
    with pytest.raises(UserError, match="512"):
        engine.score(Path(path.context, (1,) * 512), Sampling())
    with pytest.raises(UserError, match="512"):
        engine.encode("x" * 600)
    with pytest.raises(UserError, match="keeps 1 tokens of a path of 0"):
        list(engine.continue_([Job((), path, 1)], Sampling(), 0))


def test_memory_that_runs_out_is_the_machines_failure():
    model = tiny.model("llama")
    engine = engine_of(model, tiny.tokenizer())

    def exhausted(*_: Any) -> None:
        raise torch.OutOfMemoryError("no memory")

    model.register_forward_pre_hook(exhausted)
    with pytest.raises(EngineError, match="batch-bytes"):
        engine.score(random_path(engine, "hi", 3), Sampling())


def test_folder_of_safetensors_is_opened_and_pickles_are_refused(tmp_path):
    model = tiny.model("llama")
    good, pickled, incomplete = tmp_path / "good", tmp_path / "pickled", tmp_path / "incomplete"
    model.save_pretrained(good)
    tiny.tokenizer().save_pretrained(good)
    engine = open_engine(f"hf:{good}")
    path = random_path(engine, "hi", 12)
    right = engine_of(model, tiny.tokenizer()).score(path, Sampling())
    np.testing.assert_allclose(engine.score(path, Sampling()).p, right.p, rtol=1e-5)
    assert engine.name == f"hf:{good}"

    pickled.mkdir()
    incomplete.mkdir()
    for file in good.iterdir():
        if file.suffix != ".safetensors":
            (pickled / file.name).write_bytes(file.read_bytes())
            (incomplete / file.name).write_bytes(file.read_bytes())
    torch.save(model.state_dict(), pickled / "pytorch_model.bin")
    with pytest.raises(UserError, match="holds no"):
        open_engine(f"hf:{pickled}")

    weights = safetensors.torch.load_file(good / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    safetensors.torch.save_file(weights, incomplete / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="lacks 1 of the model's weights"):
        open_engine(f"hf:{incomplete}")


def test_a_tokenizer_of_a_kind_that_is_not_known_is_refused_in_a_sentence(tmp_path):
    tiny.model("llama").save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    file = tmp_path / "tokenizer.json"
    described = json.loads(file.read_text())
    described["model"]["type"] = "Unheard"
    file.write_text(json.dumps(described))
    with pytest.raises(UserError, match="cannot be read as a causal language model: data did not match"):
        open_engine(f"hf:{tmp_path}")


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_a_run_does_not_go_on_with_weights_that_changed(kind, tmp_path, capsys, monkeypatch):
    if kind == "file":  # its tokenizer is one that llama.cpp reads and transformers does not
        monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", lambda *_, **__: tiny.tokenizer())
    place = tmp_path / {"folder": "tiny", "file": "tiny.gguf"}[kind]

    def write(seed):
        model = tiny.model("llama", seed=seed)
        if kind == "file":
            tiny_gguf.write(place, model)
        else:
            model.save_pretrained(place)
            tiny.tokenizer().save_pretrained(place)

    words = ["locate", "hi", "--feature", "contains:e", "--max-new-tokens", "12", "--continuations", "20", "--json"]
    study = ["study", "prefill", "--items", "1", "--max-new-tokens", "8", "--continuations", "4", "--json"]
    write(0)
    for name, asked in (("run.db", words), ("study.db", study)):
        asked += ["--model", f"hf:{place}", "-o", str(tmp_path / name)]
        assert main(asked) == 0
        assert main(asked) == 0
    write(1)
    capsys.readouterr()
    for asked in (words, study):
        assert main(asked) == 2
        assert "holds another run" in (said := capsys.readouterr().err)
        assert "weights: " in said
    write(0)
    for asked in (words, study):
        assert main(asked) == 0


def test_a_folders_digest_sees_what_is_read_of_it(tmp_path):
    tiny.model("llama").save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    first = local_digest(str(tmp_path))
    (tmp_path / "README.md").write_text("words")
    assert local_digest(str(tmp_path)) == first
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert local_digest(str(tmp_path)) != first
        (tmp_path / name).write_bytes(content)
    (tmp_path / "chat_template.jinja").write_text("{{ messages }}")
    assert local_digest(str(tmp_path)) != first
    assert local_digest("org/name") == ""


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nothing:some/model", "there is no model 'nothing:some/model'; a model is one of smollm2, hf:"),
        ("", "a model is one of"),
        ("smollm2:large", "takes nothing after it"),
        ("hf:", "hf:ORG/NAME"),
        ("hf:nowhere/file.gguf", "there is no file nowhere/file.gguf"),
        ("hf:./no/such/folder", "there is no folder"),
        ("hf:blinkscope-nobody/nothing-there", "there is no folder blinkscope-nobody/nothing-there here"),
        ("toy:zebra", "there is no toy model"),
    ],
)
def test_models_that_do_not_exist(spec, message):
    with pytest.raises(UserError, match=message) as caught:
        open_engine(spec)
    assert "\n" not in str(caught.value)


def test_settings_that_cannot_be(tmp_path):
    for options, message in (({"device": "abacus"}, "abacus"), ({"dtype": "int3"}, "int3")):
        with pytest.raises(UserError, match=message):
            open_engine(f"hf:{tmp_path}", **options)
    with pytest.raises(UserError, match="batch-bytes is 0"):
        tiny.engine(batch_bytes=0)
    with pytest.raises(UserError, match=r"model\.eval\(\)"):
        engine_of(tiny.model("llama").train(), tiny.tokenizer())
    with pytest.raises(UserError, match="tokenizer"):
        engine_of(tiny.model("llama"), None)
    with pytest.raises(UserError, match="str is neither"):
        engine_of("llama", tiny.tokenizer())


def test_model_with_a_recurrent_state_is_refused():
    config = transformers.Qwen3NextConfig(
        vocab_size=259, hidden_size=32, intermediate_size=48, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, num_experts=2, num_experts_per_tok=1, moe_intermediate_size=16,
        shared_expert_intermediate_size=16,
    )  # fmt: skip
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with pytest.raises(UserError, match="recurrent state"):
        engine_of(model, tiny.tokenizer())


def test_missing_torch_is_answered_with_the_command(monkeypatch):
    monkeypatch.setattr(engines, "find_spec", lambda name: None if name == "torch" else object())
    for spec in ("smollm2", "hf:some/model"):
        with pytest.raises(MissingExtra, match=r"pip install 'blinkscope\[hf\]'"):
            open_engine(spec)


def test_default_settings_come_from_the_generation_config():
    model = tiny.model("llama")
    assert engine_of(model, tiny.tokenizer()).default_sampling == Sampling()
    model.generation_config.update(temperature=0.7, top_p=0.8, top_k=20, min_p=0.05)
    assert engine_of(model, tiny.tokenizer()).default_sampling == Sampling(0.7, 20, 0.8, 0.05)


def test_any_end_of_turn_token_ends_a_reply():
    model = tiny.model("llama")
    model.generation_config.eos_token_id = [257, END]
    engine = engine_of(model, tiny.tokenizer())
    path = Path(engine.encode("hi"), ())
    for end in (257, END):
        (done,) = engine.continue_([Job((), path, 0, (65, end))], Sampling(), 0)
        assert (done.tokens, done.finish) == ((65, end), "stop")
    assert engine.encode_reply(path.context, "b", finished=True).tokens == (65, END)  # the template's own


def test_messages_reach_the_model_through_its_template():
    engine = tiny.engine()
    spell = tiny.tokenizer().decode
    turns = (Message("system", "Be brief."), Message("user", "hé"))
    context = engine.encode(turns, prefill="Well")
    assert spell(context.ids) == "<|start|>system\nBe brief.<|end|>\n<|start|>user\nhé<|end|>\n<|start|>assistant\nWell"
    assert (context.prefill, context.messages) == ("Well", turns)
    assert engine.encode("hé", prefill="Well").ids == engine.encode((Message("user", "hé"),), prefill="Well").ids
    question = engine.follow_up(Path(context, (1, 2)), "Sure?")
    assert spell(question) == "<|end|>\n<|start|>user\nSure?<|end|>\n<|start|>assistant\n"


def test_a_result_notes_marks_in_the_prompt_and_settings_that_are_not_followed():
    model = tiny.model("llama")
    model.generation_config.update(temperature=0.7, repetition_penalty=1.1, no_repeat_ngram_size=3)
    engine = engine_of(model, tiny.tokenizer())

    def look(prompt: str, prefill: str = "") -> tuple[str, ...]:
        sampling = Sampling(max_new_tokens=4)
        return locate(engine, prompt, feature="contains:a", prefill=prefill, sampling=sampling, continuations=8).notes

    assert look("hi") == (
        "the model's generation config asks for repetition_penalty=1.1, no_repeat_ngram_size=3, which is not followed.",
    )
    marks = "the prompt spells <|end|>, <|pad|>, which the tokenizer reads as marks, not as text."
    assert look("hi <|end|> there <|end|>", prefill="<|pad|>")[0] == marks


def test_prompt_without_template_is_raw_text():
    engine = engine_of(tiny.model("llama"), tiny.tokenizer(template=False))
    context = engine.encode("Once upon", prefill=" a")
    assert tiny.tokenizer().decode(context.ids) == "Once upon a"
    with pytest.raises(UserError, match="no chat template"):
        engine.encode((Message("user", "hi"),))
    with pytest.raises(UserError, match="needs a chat template"):
        engine.follow_up(Path(context, ()), "Sure?")


def test_prompts_that_say_nothing_are_refused():
    engine = tiny.engine()
    for empty in ("", " \n", (), (Message("user", " "),)):
        with pytest.raises(UserError, match="is empty"):
            engine.encode(empty)
    with pytest.raises(UserError, match="last message is the assistant's"):
        engine.encode((Message("user", "hi"), Message("assistant", "ho")))


def test_pieces_give_a_character_to_the_token_that_completes_it():
    engine = tiny.engine()
    (e_acute, euro) = (tiny.tokenizer()(x).input_ids for x in "é€")
    tokens = [65, *e_acute, END, *euro, *euro[:2], 65]
    pieces = engine.pieces(tokens)
    assert pieces[:7] == ["b", "", "é", "<|end|>", "", "", "€"]
    assert len(pieces) == len(tokens)
    assert "".join(pieces).replace("<|end|>", "") == engine.decode(tokens)
    cut = [65, *euro[:2]]  # bytes that never become a character are still text
    assert "".join(engine.pieces(cut)) == engine.decode(cut)
    assert "".join(engine.pieces([*cut, END, 65])) == engine.decode(cut) + "<|end|>" + "b"


def test_transcript_that_the_tokens_cannot_spell_is_pointed_out():
    engine = tiny.engine()
    context = engine.encode("hi")
    path = engine.encode_reply(context, "né\n", finished=False)
    assert engine.decode(path.tokens) == "né\n"
    with pytest.warns(UserWarning, match="cannot spell"):
        engine.encode_reply(context, "a <|end|> b", finished=True)
