"""The one place that puts model, feature, loop and store together.

``locate`` takes a model and a prompt, finds or makes a generation, scores it, draws continuations where one more is
worth most, labels them, and returns a ``Trace``; ``reread.stored`` computes the same from a run file alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path as FilePath
from typing import Any

import numpy as np

from blinkscope.engines import EngineOptions, engine_of, open_engine
from blinkscope.errors import MissingExtra, UserError, did_you_mean
from blinkscope.estimate import streams
from blinkscope.estimate.loop import Progress
from blinkscope.estimate.predict import FORKING_FROM
from blinkscope.estimate.record import MethodOptions, PathRecord
from blinkscope.estimate.recursion import Recursion
from blinkscope.estimate.source import JSON, Source
from blinkscope.estimate.trace import Step, Target, Trace
from blinkscope.feature import Feature, Reply, label_of, start
from blinkscope.features import FEATURES, feature_of, open_feature
from blinkscope.features.judge import JUDGE_TOKENS, Answer, Judge
from blinkscope.keeper import Keeper, keeping, provenance
from blinkscope.language.engine import (
    Ask,
    Engine,
    Job,
    KnownLaw,
    Message,
    Naming,
    Path,
    Remarking,
    Score,
    Spelling,
    Stored,
)
from blinkscope.language.sampling import Sampling
from blinkscope.language.strata import FreeSource, OffPathSource, Stopwatch, Writer, open_positions, rows
from blinkscope.language.transcript import transcript_path
from blinkscope.pictured import is_picture_model, locate_picture
from blinkscope.planning import Plan
from blinkscope.question import Question, messages, sort_options
from blinkscope.runs.spec import Spec

SKIPPED_AT_MOST = 0.01
"""Positions are left out as long as no row of the curve can move by more than this."""
ROUNDING = 1e-9
OF_PICTURES = ("image", "times")
GENERATION = 0
"""Number of the generation within its run; a run of ``locate`` has one."""


def locate(
    model: Any = "smollm2",
    prompt: str | Sequence[Message | Mapping[str, str]] | Question = "",
    *,
    target: Target | None = None,
    run: str | FilePath | None = None,
    announce: Callable[[Any], None] = lambda plan: None,
    watch: Callable[[Progress], None] = lambda progress: None,
    tokenizer: Any = None,
    engine_options: Mapping[str, Any] | None = None,
    item: str | None = None,
    **options: Any,
) -> Trace:
    """Say at which tokens of a generation its outcome was decided.

    Parameters
    ----------
    model : a spelling such as ``smollm2``, ``hf:FOLDER`` or ``toy:fork``, an ``Engine``, or a loaded transformers model
        (then with its ``tokenizer``). ``replay:FILE`` takes recorded rollouts, which bring their prompt and labels;
        ``diffusion:NAME``, ``diffusers:FOLDER`` or a ``PictureModel`` looks into a picture, with the options of
        ``PictureQuestion``.
    prompt : text of a user turn, or chat messages, of which a last assistant message is the generation to analyse; or
        the whole ``Question``.
    target : when to stop and what to call a window.
    run : run file that keeps every draw; an existing one is continued.
    announce : called with the plan before anything is drawn.
    watch : called with the progress.
    engine_options : ``device``, ``dtype`` and ``batch_bytes`` of transformers and of diffusers (also ``allow_pickle``).
    item : of ``replay:FILE``, the id of the generation; the first one by default.
    options : fields of ``Question`` (``feature``, ``ask``, ``system``, ``prefill``, ``generation``, ``sampling``,
        ``method``, ``seed``, ``labels``) and of ``Target`` (``error``, ``delta``, ``continuations`` ...).

    Raises
    ------
    UserError : something asked for makes no sense; the message says what.
    EngineError : the model or its machine failed; a run file keeps what was drawn.
    """
    given = {"prompt": prompt, "tokenizer": tokenizer, "engine_options": engine_options}
    if is_picture_model(model):
        options |= {name: value for name, value in {**given, "item": item}.items() if value}
        return locate_picture(model, target=target, run=run, announce=announce, watch=watch, **options)
    if isinstance(model, str) and model.startswith("replay:"):
        from blinkscope.recorded import locate_recorded

        options |= {name: value for name, value in given.items() if value}
        return locate_recorded(model, item, target=target, run=run, announce=announce, watch=watch, **options)
    if item is not None:
        raise UserError("item names one of several recorded generations; it needs a model replay:FILE.")
    question, target = _split_options(prompt, target, options)
    engine = open_model(model, engine_options, tokenizer)
    feature = _feature(question, engine)
    sampling = question.sampling or engine.default_sampling
    stopwatch = Stopwatch()
    spec = _spec(question, engine, feature, sampling, target)
    with keeping(run, spec, lambda: stopwatch.seconds) as keeper:
        base = _writer(question, engine, feature, sampling, stopwatch)
        trace = _look_into(keeper, question, base, feature, target, announce, watch)
        keeper.finish(trace.status)
    return trace


def locate_item(
    keeper: Keeper,
    engine: Engine,
    question: Question,
    target: Target,
    *,
    stopwatch: Stopwatch | None = None,
    watch: Callable[[Progress], None] = lambda progress: None,
) -> Trace:
    """What ``locate`` does, for one of the many generations of a study's run file.

    keeper : of the generation; its number keys the random streams. The completion mark is the study's business.
    """
    feature, sampling = _feature(question, engine), question.sampling or engine.default_sampling
    base = _writer(question, engine, feature, sampling, stopwatch or Stopwatch(), keeper.generation)
    return _look_into(keeper, question, base, feature, target, lambda plan: None, watch)


def _look_into(
    keeper: Keeper,
    question: Question,
    base: Writer,
    feature: Feature[Reply],
    target: Target,
    announce: Callable[[Plan], None],
    watch: Callable[[Progress], None],
) -> Trace:
    """Find or make the generation of a keeper, score it, and draw until the target is reached."""
    engine, sampling, stopwatch = base.engine, base.sampling, base.stopwatch
    if keeper.record is None:
        record, writer, score = _fresh(question, base, feature)
        keeper.put(record)
        speed = _writing_speed(question, record, stopwatch)
    else:
        record, speed = keeper.record, None
        if isinstance(engine, Naming):
            engine.learn(step.text for step in record.steps)
        writer = replace(base, path=Path(base.path.context, record.tokens))
        score = stopwatch.once(lambda: engine.score(writer.path, sampling))
        score = with_recorded(score, np.asarray([step.p for step in record.steps]))
    expected = record.prediction(target)
    announce(Plan(record, expected, len(keeper.known), keeper.notes, seconds_per_token=speed))
    return keeper.analyse(record, _source(record, writer, score), target, watch)


def plan(
    model: Any = "smollm2",
    prompt: str | Sequence[Message | Mapping[str, str]] | Question = "",
    *,
    tokenizer: Any = None,
    engine_options: Mapping[str, Any] | None = None,
    item: str | None = None,
    **options: Any,
) -> Plan:
    """What ``locate`` with the same arguments, and other methods, would cost.

    Finds or makes the generation and scores it; draws nothing and writes no file.
    """
    if is_picture_model(model):
        raise UserError(
            "there is no plan for diffusion models: which noise levels are looked at depends on what is drawn. Limit "
            "it with continuations instead."
        )
    if isinstance(model, str) and model.startswith("replay:"):
        from blinkscope.recorded import plan_recorded

        return plan_recorded(model, item, **options)
    question, target = _split_options(prompt, None, options)
    question = replace(question, method=MethodOptions())
    engine = open_model(model, engine_options, tokenizer)
    feature = _feature(question, engine)
    stopwatch = Stopwatch()
    base = _writer(question, engine, feature, question.sampling or engine.default_sampling, stopwatch)
    record, _, score = _fresh(question, base, feature)
    return Plan(
        record,
        record.prediction(target),
        0,
        alternatives=tuple(int((other.p > FORKING_FROM).sum()) for other in score.alternatives),
        seconds_per_token=_writing_speed(question, record, stopwatch),
    )


def _writing_speed(question: Question, record: PathRecord, stopwatch: Stopwatch) -> float | None:
    """Seconds a token that the generation took, scoring included; None where it was given."""
    return stopwatch.seconds / len(record.steps) if question.transcript is None else None


def open_model(model: Any, options: Mapping[str, Any] | None = None, tokenizer: Any = None) -> Engine:
    """An engine for whatever names or is a model: a spelling, an engine, or a transformers model with its tokenizer."""
    options = options or {}
    known = EngineOptions.__dataclass_fields__ if isinstance(model, str) else ("batch_bytes",)
    if unknown := [name for name in options if name not in known]:
        raise UserError(f"engine_options has no {unknown[0]!r} for this model; it has {', '.join(known)}.")
    if isinstance(model, str):
        return open_engine(model, **options)
    if hasattr(model, "continue_"):
        engine: Engine = model
        return engine
    return engine_of(model, tokenizer, **options)


def sampling_of(engine: Engine, changes: Mapping[str, Any]) -> Sampling:
    """The model's own sampling settings with some of them changed."""
    return replace(engine.default_sampling, **changes)


def _split_options(
    prompt: str | Sequence[Message | Mapping[str, str]] | Question, target: Target | None, options: Mapping[str, Any]
) -> tuple[Question, Target]:
    def refusal(name: str, known: Sequence[str]) -> str:
        if name in Sampling.__dataclass_fields__:
            return f"{name} is a field of Sampling; write sampling=Sampling({name}=...)."
        if name in MethodOptions.__dataclass_fields__:
            return f"{name} is a field of MethodOptions; write method=MethodOptions('grid', {name}=...)."
        if name in EngineOptions.__dataclass_fields__:
            return f"{name} is of how a model is loaded; write engine_options={{{name!r}: ...}}."
        if name in OF_PICTURES:
            return f"{name} is of pictures; it needs a model diffusion:NAME or diffusers:FOLDER."
        every = ("model", *known, "target", "run", "announce", "watch", "tokenizer", "engine_options", "item")
        every = (*every, *OF_PICTURES)
        return f"locate() has no option {name!r}{did_you_mean(name, every)} It has {', '.join(every)}."

    of_question, target = sort_options(Question, target, options, refusal)
    if target.ends is not None:
        raise UserError("ends are those of a picture's change; with a text, leave them out.")
    if isinstance(of_question.get("method"), str):
        of_question["method"] = MethodOptions(of_question["method"])
    if isinstance(prompt, Question):
        return replace(prompt, **of_question), target
    turns = prompt if isinstance(prompt, str) else messages(prompt)
    return Question(turns, **of_question), target


def _feature(question: Question, engine: Engine) -> Feature[Reply]:
    feature = feature_for(engine, question.feature)
    return handed_judge(feature, judge_of(feature, engine), question.request)


def feature_for(engine: Engine, asked: str | Callable[[str], str | None] | Feature[Reply] | None) -> Feature[Reply]:
    """The feature that is asked for; the model's own where none is and it has one."""
    if asked is None:
        if isinstance(engine, KnownLaw):
            return engine.feature
        raise no_feature()
    if isinstance(asked, str):
        return open_feature(asked)
    return asked if isinstance(asked, Feature) else feature_of(asked)


def no_feature() -> UserError:
    """What is said where nothing tells outcomes apart."""
    examples = "; ".join(f"{entry.example} ({entry.summary})" for entry in FEATURES.values())
    return UserError(f"say how outcomes are told apart with a feature: {examples}.")


def judge_of(feature: Feature[Reply], engine: Engine, options: Mapping[str, Any] | None = None) -> Answer | None:
    """The model of a judge as a function from a user's turn to its answer; None for any other feature.

    That is ``engine`` where it has this name. A server is asked by its chat route, which any chat server has.
    """
    if not isinstance(feature, Judge):
        return None
    if feature.model == engine.name:
        return partial(_judgement, engine)
    if feature.model.startswith(("http://", "https://")):
        if find_spec("aiohttp") is None:
            raise MissingExtra("a judge behind a server", "http")
        from blinkscope.engines.servers.chat import open_chat

        return open_chat(feature.model, JUDGE_TOKENS)
    try:
        return partial(_judgement, open_model(feature.model, options))
    except MissingExtra:
        raise
    except UserError as error:
        raise UserError(f"the model of {feature.name} cannot be opened: {error}") from error


def handed_judge(feature: Feature[Reply], judge: Answer | None, request: str) -> Feature[Reply]:
    """A judge with its model, for replies to ``request``; any other feature as it is."""
    if judge is None or not isinstance(feature, Judge):
        return feature
    return feature.handed(judge, request)


def _judgement(engine: Engine, question: str) -> Reply:
    """A model's answer to one user's turn, at temperature 0."""
    sampling = replace(engine.default_sampling, temperature=0.0, max_new_tokens=JUDGE_TOKENS)
    path = Path(engine.encode(question), ())
    (done,) = engine.continue_([Job((), path, 0)], sampling, 0)
    return Reply(engine.decode(done.tokens), done.finish == "stop")


def _spec(question: Question, engine: Engine, feature: Feature[Reply], sampling: Sampling, target: Target) -> Spec:
    identity: dict[str, JSON] = {
        **_asked(question, engine, feature, sampling),
        "generation": question.generation,
        "method": question.method.to_json(),
        "labels": question.labels,
    }
    if isinstance(engine, Stored) and engine.digest:
        identity |= {"model": known_as(engine), "weights": engine.digest}
    return Spec(identity=identity, target=asdict(target), provenance=provenance())


def known_as(engine: Any) -> str:
    """The name by which a run file knows a model: its spelling, but for ``gguf:`` without the folder."""
    return engine.identity if isinstance(engine, Stored) else str(engine.name)


def _asked(question: Question, engine: Engine, feature: Feature[Reply], sampling: Sampling) -> dict[str, JSON]:
    """What was asked of which model, as run files and results spell it."""
    return {
        "prompt": question.prompt if isinstance(question.prompt, str) else [asdict(m) for m in question.prompt],
        "system": question.system,
        "prefill": question.prefill,
        "model": engine.name,
        "feature": feature.name,
        "ask": question.ask,
        "sampling": {**asdict(sampling), "stop": list(sampling.stop)},
        "seed": question.seed,
    }


def _writer(
    question: Question,
    engine: Engine,
    feature: Feature[Reply],
    sampling: Sampling,
    stopwatch: Stopwatch,
    generation: int = GENERATION,
) -> Writer:
    """What writes and labels continuations; its path is still empty."""
    path = Path(engine.encode(question.turns, prefill=question.prefill), ())
    ask = None if question.ask is None else Ask(engine.follow_up(path, question.ask))
    return Writer(
        engine=engine,
        path=path,
        sampling=sampling,
        label=lambda reply: label_of(feature, reply),
        seed=question.seed,
        generation=generation,
        ask=ask,
        stopwatch=stopwatch,
    )


def _fresh(question: Question, base: Writer, feature: Feature[Reply]) -> tuple[PathRecord, Writer, Score]:
    """Find or make the generation, score it and write down what its analysis needs."""
    start(feature)
    engine, sampling = base.engine, base.sampling
    transcript = question.transcript
    given = base.path if transcript is None else transcript_path(engine, base.path.context, transcript, sampling)
    # A transcript is kept whole: what goes on after it is only the end of the turn and the follow-up question.
    job = Job((), given, len(given.tokens), (), (streams.GENERATION, base.generation), base.ask)
    done = base.stopwatch.once(lambda: next(iter(engine.continue_([job], sampling, question.seed))))
    final = base.label(base.reply(done))
    if transcript is None:
        path, recorded = Path(given.context, done.tokens), np.asarray(done.p)
    else:
        path, recorded = given, np.full(len(given.tokens), np.nan)
    if not path.tokens:
        raise UserError("the generation is empty: the model ended its turn at once, so there is nothing to look into.")
    writer = replace(base, path=path)
    score = with_recorded(base.stopwatch.once(lambda: engine.score(path, sampling)), recorded)
    if transcript is None:
        ended = done.finish == "stop"
    else:  # one that is shorter than the cap was given an end of turn
        ended = len(path.tokens) > len(engine.encode_reply(path.context, transcript, finished=False).tokens)
    return _record(question, writer, feature, score, final, ended), writer, score


def with_recorded(score: Score, recorded: np.ndarray) -> Score:
    """The score with the probabilities that were recorded while sampling in place of those of the scoring pass.

    The two can differ in their last bits, and then a token at the nucleus's edge is inside for one and outside for the
    other; the token was drawn, so the recorded value is right. What is left goes to the alternatives in proportion.
    """
    use = np.isfinite(recorded)
    p = np.where(use, recorded, score.p)
    off_path = np.where(use, np.clip(1 - p, 0, 1), score.off_path)
    # One rounding error below certainty is certainty: nothing else was inside the filter.
    certain = use & (np.asarray([len(a.ids) for a in score.alternatives]) == 0)
    p, off_path = np.where(certain, 1.0, p), np.where(certain, 0.0, off_path)
    scale = np.divide(off_path, score.off_path, out=np.ones_like(off_path), where=score.off_path > 0)
    scale = np.where(np.abs(scale - 1) < ROUNDING, 1.0, scale)
    alternatives = tuple(replace(a, p=a.p * factor) for a, factor in zip(score.alternatives, scale, strict=True))
    return Score(p, off_path, alternatives, score.notes)


def _record(
    question: Question, writer: Writer, feature: Feature[Reply], score: Score, final_label: str, ended: bool
) -> PathRecord:
    engine, path, sampling = writer.engine, writer.path, writer.sampling
    recursion = Recursion(score.p, score.off_path)
    strata = (
        open_positions(score, recursion.negligible(SKIPPED_AT_MOST))
        if question.method.name == "divergence"
        else rows(len(path.tokens))
    )
    listed = [float(a.p.sum() / q) if q > 0 else 1.0 for a, q in zip(score.alternatives, score.off_path, strict=True)]
    truth = None
    if isinstance(engine, KnownLaw) and feature.name == engine.feature.name:
        exact = engine.truth(path, sampling)
        if exact is not None:
            truth = (exact.labels, tuple(tuple(float(x) for x in row) for row in exact.posterior))
    pieces, context = engine.pieces(path.tokens), path.context
    remarks = engine.remarks(context) if isinstance(engine, Remarking) else ()
    return PathRecord(
        settings={**_asked(question, engine, feature, sampling), "method": question.method.name},
        text=engine.decode(path.tokens),
        tokens=path.tokens,
        steps=tuple(
            Step(text, float(p), float(q), token)
            for text, p, q, token in zip(pieces, score.p, score.off_path, path.tokens, strict=True)
        ),
        listed=tuple(1.0 if share > 1 - ROUNDING else share for share in listed),
        strata=tuple((stratum.key, stratum.cost) for stratum in strata),
        final_label=final_label,
        method=question.method,
        seed=question.seed,
        labels=question.labels,
        scored_tokens=len(path.tokens),
        truth=truth,
        notes=(*remarks, *_notes(pieces, score, sampling)),
        generation=writer.generation,
        context=engine.spell(context) if isinstance(engine, Spelling) else "".join(engine.pieces(context.ids)),
        ended=ended,
    )


def _notes(pieces: Sequence[str], score: Score, sampling: Sampling) -> tuple[str, ...]:
    """What a reader should know about this path before trusting the numbers."""
    notes = list(score.notes)
    impossible = [f"{s + 1} ({pieces[s]!r})" for s in range(len(pieces)) if score.p[s] == 0]
    if impossible:
        shown = ", ".join(impossible[:5]) + (f" and {len(impossible) - 5} more" if len(impossible) > 5 else "")
        notes.append(
            f"the sampler could not have produced token {shown}: its filter gives it probability 0, so the law of "
            "what would have been said instead stands there in full."
        )
    if not (score.off_path > 0).any():
        why = "at temperature 0" if sampling.temperature == 0 else "with these settings"
        notes.append(f"{why} every token of this text was the only one possible.")
    return tuple(notes)


def _source(record: PathRecord, writer: Writer, score: Score) -> Source:
    strata = record.places
    if record.method.name == "divergence":
        return OffPathSource(writer, score.alternatives, strata)
    return FreeSource(writer, strata)
