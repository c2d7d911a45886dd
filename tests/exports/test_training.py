"""Pairs of a real run, in a real trainer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import transformers
from tokenizers import Tokenizer, processors

import blinkscope
from blinkscope.cli.main import main
from blinkscope.engines.text import Text
from blinkscope.language.engine import Engine, Message, Spelling
from tests.engines import tiny

PROMPT = "Cat or dog for a small flat? Answer with one short sentence."


@pytest.mark.model
def test_a_spelled_context_is_tokenised_to_itself(smollm2: Engine) -> None:
    assert isinstance(smollm2, Spelling)
    turns = (Message("system", "Be brief."), Message("user", "Hi.\n\nWho <|is|> it?"))
    context = smollm2.encode(turns, prefill="It is  me, ")
    assert tuple(smollm2._text.tokenizer(smollm2.spell(context)).input_ids) == context.ids  # type: ignore[attr-defined]


def test_a_mark_that_the_tokenizer_adds_by_itself_is_left_out() -> None:
    """With a tokenizer that begins every text with a mark, and a template that spells the mark too, as Llama's are."""
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(tiny.tokenizer().backend_tokenizer.to_str()),
        bos_token="<|pad|>",
        eos_token="<|end|>",
        chat_template="{{ bos_token }}" + tiny.TEMPLATE,
    )
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|pad|> $A", special_tokens=[("<|pad|>", 256)]
    )
    text = Text(tokenizer, frozenset({258}))
    context = text.encode("Hi.", "Well, ")
    spelled = text.spell(context)
    assert context.ids[:2] == (256, 257)
    assert spelled.startswith("<|start|>user")
    assert tuple(tokenizer(spelled).input_ids) == context.ids


@pytest.mark.model
@pytest.mark.slow
def test_a_trainer_takes_two_steps(smollm2: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets, trl = pytest.importorskip("datasets"), pytest.importorskip("trl")
    import torch

    from blinkscope.engines.loading import Placement
    from blinkscope.engines.smollm2 import load_smollm2
    from blinkscope.language.sampling import Sampling

    sampling = Sampling(temperature=0.6, top_p=0.9, max_new_tokens=120)
    options = {"feature": r"regex:(?i)\b(cat|dog)s?\b", "sampling": sampling, "seed": 2}
    blinkscope.locate(smollm2, PROMPT, **options, continuations=100, error=0.12, run=tmp_path / "run.db")
    pairs = tmp_path / "pairs"
    command = ["export", "--to", "preference", "--prefer", "cat", "--delta", "0.3", str(tmp_path / "run.db")]
    assert main([*command, "-o", str(pairs)]) == 0

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    rows = datasets.load_dataset(str(pairs), split="train", cache_dir=str(tmp_path / "cache"))
    loaded = load_smollm2(Placement(torch.device("cpu"), torch.float32))
    before = {name: weights.detach().clone() for name, weights in loaded.model.named_parameters()}
    settings = trl.DPOConfig(
        output_dir=str(tmp_path / "trained"),
        max_steps=2,
        per_device_train_batch_size=1,
        learning_rate=1e-3,
        optim="sgd",
        use_cpu=True,
        bf16=False,
        report_to=[],
        save_strategy="no",
        logging_steps=1,
        disable_tqdm=True,
    )
    trainer = trl.DPOTrainer(model=loaded.model, args=settings, train_dataset=rows, processing_class=loaded.tokenizer)
    result = trainer.train()
    assert result.global_step == 2
    assert np.isfinite(result.training_loss)
    assert any(not torch.equal(before[name], weights) for name, weights in loaded.model.named_parameters())
