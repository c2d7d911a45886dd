"""``python:`` features, run in their worker as users run them."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from blinkscope.errors import UserError
from blinkscope.feature import Reply, label_of
from blinkscope.features import open_feature
from blinkscope.features.python import PythonFunction

MODULE = """
import os, signal, subprocess, sys, time

calls = 0

def animal(text):
    return "dog" if "dog" in text else None

def count(text):
    global calls
    calls += 1
    return str(calls)

def pid(text):
    return str(os.getpid())

def noisy(text):
    print("said aloud")
    os.write(1, b"written to 1\\n")
    return repr(sys.stdin.read())

def number(text):
    return len(text)

def raising(text):
    raise ValueError(f"cannot read {text[:3]!r}")

def leaving(text):
    sys.exit(3)

def crashing(text):
    os._exit(7)

def hanging(text):
    if text == "hang":
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        with open("child", "w") as file:
            file.write(str(child.pid))
        os.rename("child", "hanging")
        child.wait()
    return str(os.getpid())

def echo(text):
    return text

value = 3
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module of the user's in the current folder, which is not on sys.path."""
    (tmp_path / "mine.py").write_text(MODULE)
    (tmp_path / "broken.py").write_text("1 / 0")
    (tmp_path / "needs.py").write_text("import not_installed_anywhere")
    (tmp_path / "quitting.py").write_text("import os; os._exit(5)")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ask(spec: str, text: str = "A small dog") -> str | None:
    return open_feature(f"python:{spec}").label(Reply(text, finished=True))


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def ended(pid: int, seconds: float = 60.0) -> bool:
    deadline = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not alive(pid)


def hanging(folder):
    """Wait until the function hangs in its worker, and say for which process of its own."""
    while not (folder / "hanging").exists():
        time.sleep(0.02)
    return int((folder / "hanging").read_text())


def test_a_module_of_the_current_folder(module):
    assert ask("mine:animal") == "dog"
    assert ask("mine:animal", "A cat") is None


def test_a_module_on_pythonpath(module, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    code = "from blinkscope.features import open_feature; from blinkscope.feature import Reply\n"
    code += "print(open_feature('python:mine:animal').label(Reply('a dog', True)))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=elsewhere,
        env={**os.environ, "PYTHONPATH": str(module)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.stdout, done.returncode) == ("dog\n", 0)


def test_from_a_script_without_a_main_guard(module):
    script = module / "script.py"
    script.write_text(
        textwrap.dedent("""
        from blinkscope.feature import Reply
        from blinkscope.features import open_feature
        print("once")
        print(open_feature("python:mine:animal").label(Reply("a dog", True)))
        """)
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode) == ("once\ndog\n", 0)


def test_nothing_starts_before_the_first_reply(module):
    assert open_feature("python:mine:nothing_here").name == "python:mine:nothing_here"


def test_one_worker_serves_all_replies_in_another_process(module):
    feature = open_feature("python:mine:count")
    assert [feature.label(Reply("x", finished=True)) for _ in range(3)] == ["1", "2", "3"]
    assert ask("mine:pid") != str(os.getpid())


def test_what_a_function_prints_goes_to_stderr_and_stdin_is_empty(module, capfd):
    assert ask("mine:noisy") == "''"
    out, err = capfd.readouterr()
    assert out == ""
    assert "written to 1" in err


@pytest.mark.parametrize("text", ["", "\n", '{"text": 1}\n', "\x00\x1b[0m\u2028\u202e", "é" * 10, "x" * 200])
def test_any_text_arrives_as_it_is(module, text):
    feature = open_feature("python:mine:echo")
    if text.strip():
        assert feature.label(Reply(text, finished=True)) == text
    else:
        with pytest.raises(UserError, match="a label has characters to see"):
            feature.label(Reply(text, finished=True))


def test_long_text_and_long_labels(module):
    assert ask("mine:echo", "x" * 1_000_000) == "x" * 200 + "…"


def test_half_a_surrogate_pair(module):
    assert ask("mine:echo", "a\ud800") == "a?"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nothing:f", r"'python:nothing:f': there is no module 'nothing'; it is looked for in the current folder"),
        ("mine.sub:f", r"there is no module 'mine.sub'"),
        ("mine:animals", r"module 'mine' has no function 'animals' \(did you mean 'animal'\?\)\.$"),
        ("mine:value", r"'value' in module 'mine' is of type int, not a function"),
        ("broken:f", r"importing broken raised ZeroDivisionError \('division by zero'\)"),
        ("needs:f", r"importing needs raised ModuleNotFoundError \(.*not_installed_anywhere"),
        ("quitting:f", r"importing quitting ended its own process \(exit status 5\)"),
        ("mine:number", r"returned a value of type int; a label is a string, or None where nothing is found"),
        ("mine:raising", r"'python:mine:raising' raised ValueError \(.*A s.*\); the reply begins 'A small dog'"),
        ("mine:leaving", r"raised SystemExit \('3'\)"),
        ("mine:crashing", r"ended its own process \(exit status 7\)"),
    ],
)
def test_what_goes_wrong_is_said_in_one_sentence(module, spec, message):
    with pytest.raises(UserError, match=message) as error:
        ask(spec)
    assert "\n" not in str(error.value)


def test_after_a_failure_the_next_reply_is_read(module):
    feature = PythonFunction("mine", "crashing")
    for _ in range(2):
        with pytest.raises(UserError, match="exit status 7"):
            feature.label(Reply("x", finished=True))
    feature = PythonFunction("mine", "raising")
    for _ in range(2):
        with pytest.raises(UserError, match="raised ValueError"):
            feature.label(Reply("x", finished=True))


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="process groups are POSIX")
def test_a_function_that_hangs_is_killed_and_started_again(module):
    # Replies that are answered have to be answered in this time too: a busy machine may keep them waiting for a while.
    feature = PythonFunction("mine", "hanging", time_limit=4.0)
    first = int(feature.label(Reply("x", finished=True)))
    with pytest.raises(UserError, match="gave no label within 4 seconds; the reply begins 'hang'"):
        feature.label(Reply("hang", finished=True))
    assert ended(first)
    assert int(feature.label(Reply("x", finished=True))) != first


def test_after_an_interruption_answers_still_belong_to_their_questions(module):
    feature = open_feature("python:mine:hanging")
    first = feature.label(Reply("x", finished=True))

    def interrupt():
        hanging(module)
        os.kill(os.getpid(), signal.SIGINT)

    interruption = threading.Thread(target=interrupt)
    interruption.start()
    with pytest.raises(KeyboardInterrupt):
        feature.label(Reply("hang", finished=True))
    interruption.join()
    assert ended(int(first))
    assert feature.label(Reply("x", finished=True)) != first


def test_the_worker_ends_with_its_feature(module):
    feature = open_feature("python:mine:pid")
    worker = int(feature.label(Reply("x", finished=True)))
    assert alive(worker)
    del feature
    assert ended(worker)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="POSIX signals")
@pytest.mark.parametrize("text", ["x", "hang"])
def test_the_worker_and_what_it_started_do_not_outlive_a_killed_process(module, text):
    code = f"""
from blinkscope.features import open_feature
from blinkscope.feature import Reply
feature = open_feature("python:mine:hanging")
print(feature.label(Reply("x", True)), flush=True)
feature.label(Reply({text!r}, True))
input()
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        pids = [int(process.stdout.readline())]
        if text == "hang":
            pids.append(hanging(module))
        assert all(map(alive, pids))
        process.kill()
        process.wait()
        assert all(map(ended, pids))


@pytest.mark.parametrize("limit", [0, -1.0, float("nan")])
def test_a_time_limit_is_positive(limit):
    with pytest.raises(UserError, match="positive number of seconds"):
        PythonFunction("mine", "animal", time_limit=limit)


@pytest.mark.parametrize("spec", ["python:a b:f", "python:mine:f()", "python:./mine.py:f", "python:mine:a.b"])
def test_what_does_not_name_a_function_is_refused(spec):
    with pytest.raises(UserError, match="does not name a function"):
        open_feature(spec)


def test_the_label_of_a_reply(module):
    feature = open_feature("python:mine:animal")
    assert label_of(feature, Reply("a cat", finished=True)) == "(unparsed)"
    assert label_of(feature, Reply("a cat", finished=False)) == "(truncated)"
