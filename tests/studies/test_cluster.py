"""Items spread over a Ray cluster come to the run file that one process alone would write.

One Ray is begun for all of these tests, in a process of its own, so that they join a cluster as they would another
machine's; the last ones begin and kill their own.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import warnings
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import Any

import psutil
import pytest

from blinkscope.engines.servers.address import one_each
from blinkscope.errors import EngineError, MissingExtra, UserError
from blinkscope.estimate.trace import Target
from blinkscope.keeper import named
from blinkscope.reread import items_of
from blinkscope.runs.store import Run
from blinkscope.studies import ray_session
from blinkscope.studies.cluster import BATCH_BYTES, Cluster, _places
from blinkscope.studies.cluster_shift import MOST_DEATHS, Shift
from blinkscope.studies.cluster_worker import Held, Write
from blinkscope.studies.cot import CotSpec
from blinkscope.studies.distribution import DistributionSpec
from blinkscope.studies.prefill import PrefillSpec
from blinkscope.studies.ray_session import ray_at, without_secrets
from blinkscope.studies.study import BESIDE, Study, run_study
from blinkscope.studies.whole import Whole
from blinkscope.studies.workers import StudyItem, Task
from tests.e2e.command import blinkscope, wait_for
from tests.engines.fake_server import FakeServer, serving
from tests.studies.test_contract import COARSE, SPECS, TOY, study_of

LONG = DistributionSpec(prompt="What?", items=5, step=2, asking=TOY, target=Target(error=0.03))
HTTP_TOY = "fork?agree=2&width=3&leak=0.1&length=14"


@contextmanager
def begun(**environment: str) -> Iterator[tuple[str, psutil.Process]]:
    """Address of a cluster, and the process that began it."""
    code = (
        "import sys; from blinkscope.studies.ray_session import ray_at\n"
        "with ray_at('local') as ray:\n"
        "    print(ray.get_runtime_context().gcs_address, file=sys.__stdout__, flush=True)\n"
        "    sys.stdin.read()"
    )
    command = [sys.executable, "-c", code]
    settings: dict[str, Any] = {"text": True, "env": {**os.environ, **environment}}
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **settings)
    assert process.stdin is not None
    assert process.stdout is not None
    yield process.stdout.readline().strip(), psutil.Process(process.pid)
    process.stdin.close()
    assert process.wait(60) == 0


@pytest.fixture(scope="module")
def ray() -> Iterator[tuple[str, psutil.Process]]:
    with begun() as cluster:
        yield cluster


def content(path: Path) -> tuple[Any, ...]:
    """All that a run file says of its items: what they came to, and every draw."""
    with Run.open(path) as run:
        documents = {name: run.document(name) for name in run.documents()}
        return run.spec.identity, run.status, documents, [run.draws(number) for number in generations_of(run)]


def generations_of(run: Run) -> list[int]:
    """Numbers under which a run keeps draws: those of its items, and those beside them."""
    items = range(len(items_of(run)))
    return [*items, *(BESIDE + number for number in items)]


def workers_of(process: psutil.Process) -> list[psutil.Process]:
    """The processes of a cluster that work on items."""
    return [child for child in process.children(recursive=True) if name_of(child).startswith("ray::Worker")]


def name_of(process: psutil.Process) -> str:
    """Its name; none where it has ended meanwhile."""
    with suppress(psutil.NoSuchProcess):
        return process.name()
    return ""


def together(study: Study, folder: Path) -> Study:
    """The study, with work on its items that begins when two workers have one."""
    folder.mkdir()
    work, place = study.work, str(folder)

    def waiting(desk: Any) -> Any:
        import os
        import time

        open(os.path.join(place, str(os.getpid())), "w").close()
        while len(os.listdir(place)) < 2:
            time.sleep(0.05)
        return work(desk)

    return replace(study, work=waiting)


@pytest.mark.parametrize("name", SPECS)
def test_the_run_is_the_one_that_a_process_alone_writes(name: str, ray: Any, tmp_path: Path) -> None:
    study, spec = study_of(name), SPECS[name]
    alone = run_study(study, spec, tmp_path / "alone.db")
    seen: list[Whole] = []
    spread = run_study(study, spec, tmp_path / "spread.db", workers=Cluster(ray[0]), watch=seen.append)  # type: ignore[arg-type]
    assert spread.to_json() == alone.to_json()
    assert content(tmp_path / "spread.db") == content(tmp_path / "alone.db")
    last = seen[-1]
    assert (last.finished, last.at_work) == (last.items, 0)
    assert (last.continuations, last.cost) == (alone.cost["continuations"], alone.cost["generated_tokens"])


def test_what_a_killed_worker_had_is_worked_on_by_others(ray: Any, tmp_path: Path) -> None:
    study = study_of("distribution")
    alone = run_study(study, LONG, tmp_path / "alone.db")
    address, process = ray
    others = [worker.pid for worker in workers_of(process)]  # of the tests before, if they have not ended yet
    killed: list[int] = []

    def watch(whole: Any) -> None:
        if len(killed) < MOST_DEATHS - 1 and whole.continuations > 300 * (1 + len(killed)) and whole.at_work:
            victim = next((worker for worker in workers_of(process) if worker.pid not in (*others, *killed)), None)
            if victim is not None:
                killed.append(victim.pid)
                victim.kill()

    spread = run_study(study, LONG, tmp_path / "spread.db", workers=Cluster(address), watch=watch)
    assert len(set(killed)) == MOST_DEATHS - 1
    assert spread.to_json() == alone.to_json()
    assert content(tmp_path / "spread.db") == content(tmp_path / "alone.db")


def test_an_item_that_kills_its_workers_is_counted_and_tried_again(ray: Any, tmp_path: Path) -> None:
    work = study_of("distribution").work
    # Spelled as a lambda, so that the workers get it as it is: they do not have these tests.
    deadly = replace(
        study_of("distribution"), work=lambda desk: __import__("os")._exit(1) if desk.item.id == "2" else work(desk)
    )
    spec = SPECS["distribution"]
    found = run_study(deadly, spec, tmp_path / "run.db", workers=Cluster(ray[0]))
    assert (found.status, found.waiting) == ("interrupted", 1)
    assert list(found.failed) == ["2"]
    kind, reason = found.failed["2"]
    assert kind == "engine"
    assert f"died with it {MOST_DEATHS} times" in reason
    again = run_study(study_of("distribution"), spec, tmp_path / "run.db", workers=Cluster(ray[0]))
    assert again.to_json() == run_study(study_of("distribution"), spec, tmp_path / "alone.db").to_json()


def test_items_that_fail_are_counted_as_in_one_process(ray: Any, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"prompt": "Which way?"}\n{"text": 1}\n{"prompt": "And then?"}\n')
    spec = PrefillSpec(
        data=str(tmp_path / "rows.jsonl"),
        opening=" Each",
        feature="contains:happy",
        outcome="yes",
        asking=TOY,
        target=COARSE,
    )
    alone = run_study(study_of("prefill"), spec, tmp_path / "alone.db")
    assert [kind for kind, _ in alone.failed.values()] == ["item"]
    spread = run_study(study_of("prefill"), spec, tmp_path / "spread.db", workers=Cluster(ray[0]))
    assert spread.to_json() == alone.to_json()


@pytest.mark.slow
def test_each_server_has_a_worker_and_what_one_fails_with_goes_to_another(ray: Any, tmp_path: Path) -> None:
    def spec(*servers: FakeServer) -> CotSpec:
        model = ",".join(server.url for server in servers) + "?patience=1"
        return CotSpec(items=8, ask=False, asking=replace(TOY, model=model, max_new_tokens=14), target=COARSE)

    study = study_of("cot")
    with serving("vllm", toy=HTTP_TOY) as one, serving("vllm", toy=HTTP_TOY) as two:
        alone = run_study(study, spec(one), tmp_path / "alone.db")
        for server in (one, two):
            server.arrived.clear()
        both = together(study, tmp_path / "both")
        spread = run_study(both, spec(one, two), tmp_path / "spread.db", workers=Cluster(ray[0]))
        assert spread.to_json() == alone.to_json()
        assert min(len(one.arrived), len(two.arrived)) > 20
        two._served, two.stop_after, two.comes_back = 0, [20], False
        both = together(study, tmp_path / "again")
        spread = run_study(both, spec(one, two), tmp_path / "half.db", workers=Cluster(ray[0]))
        assert not spread.failed
        assert spread.to_json() == alone.to_json()
        assert not two.stop_after
        seen: list[Whole] = []
        folder = tmp_path / "left"
        waiting = together(study, folder)

        def watch(whole: Any) -> None:
            seen.append(whole)
            if any("a worker is left out: no server answers" in str(one.message) for one in warned):
                (folder / "nobody").touch()  # takes the place of the worker that is not waited for any longer

        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            again = run_study(waiting, spec(two, one), tmp_path / "left.db", workers=Cluster(ray[0]), watch=watch)
        assert (folder / "nobody").exists()
        assert again.to_json() == alone.to_json()
        assert seen[-1].workers == 1


@pytest.mark.slow
@pytest.mark.model
def test_the_embedded_model_on_two_workers(ray: Any, tmp_path: Path) -> None:
    asking = replace(CotSpec().asking, max_new_tokens=8, temperature=1.0)
    spec = CotSpec(items=2, ask=False, asking=asking, target=Target(error=0.01, continuations=16))
    options = {"batch_bytes": 2**28}
    study, folder = study_of("cot"), tmp_path / "met"
    spread = run_study(
        together(study, folder),
        spec,
        tmp_path / "spread.db",
        engine_options=options,
        workers=Cluster(ray[0]),
    )
    assert spread.status == "complete"
    assert not spread.failed
    assert len(list(folder.iterdir())) == 2
    alone = run_study(study, spec, tmp_path / "alone.db", engine_options=options)
    assert content(tmp_path / "spread.db") == content(tmp_path / "alone.db")
    assert spread.to_json() == alone.to_json()


def test_where_there_is_no_cluster_one_sentence_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(address: str) -> None:
        with ray_at(address):
            raise AssertionError

    with pytest.raises(EngineError, match=r"no Ray cluster answers at 127\.0\.0\.1:9 \(connection refused\)"):
        asked("127.0.0.1:9")
    for wrong in ("gpu-box", "ray://a:10001", "a:99999", ":1"):
        with pytest.raises(UserError, match="give HOST:PORT"):
            asked(wrong)
    monkeypatch.setattr(ray_session, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"pip install 'blinkscope\[ray\]'"):
        asked("local")
    with (
        pytest.raises(UserError, match="in memory"),
        Cluster()(study_of("cot"), CotSpec(), object(), {}),
    ):
        raise AssertionError


def failing(monkeypatch: pytest.MonkeyPatch, address: str, said: str) -> str:
    """What a user is told where Ray cannot connect and says that."""

    def init(**settings: object) -> None:
        os.write(2, b"gcs_client.cc:210: InvalidAuthToken\n")
        raise ConnectionError(said)

    monkeypatch.setattr("ray.init", init)
    with pytest.raises(EngineError) as told, ray_at(address):
        raise AssertionError
    return str(told.value)


def test_what_ray_says_of_a_failure_is_told_in_our_words(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    nothing = (
        "Could not find any running Ray instance. Please specify the one to connect to by setting `--address` flag."
    )
    told = failing(monkeypatch, "auto", nothing)
    assert told == "no Ray cluster runs on this machine; start one with ray start --head, or give --ray no address."
    with listening(b"\0\0\0\4\0\0\0\0\0") as address:  # as a cluster greets
        told = failing(monkeypatch, address, "Failed to connect")
    assert told.startswith(f"no Ray cluster can be used at {address}: Failed to connect. If the cluster wants a token")
    assert "RAY_AUTH_MODE=disabled" in told
    assert capfd.readouterr() == ("", "")
    os.write(2, b"heard")
    assert capfd.readouterr().err == "heard"


@contextmanager
def listening(answer: bytes) -> Iterator[str]:
    """An address where everyone who calls gets the same answer, or none."""

    class Answering(BaseRequestHandler):
        def handle(self) -> None:
            self.request.sendall(answer)
            with suppress(ConnectionError):
                while self.request.recv(100):  # until they hang up
                    pass

    with ThreadingTCPServer(("127.0.0.1", 0), Answering) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "what answers at {} is no Ray cluster"),
        (b"", "no Ray cluster answers at {}"),
    ],
    ids=["another", "silent"],
)
def test_what_is_no_cluster_is_not_waited_for(answer: bytes, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_session, "CONNECT_SECONDS", 5.0 if answer else 0.3)
    monkeypatch.setattr("ray.init", lambda **settings: pytest.fail("Ray was asked"))
    with listening(answer) as address, pytest.raises(EngineError, match=said.format(address)), ray_at(address):
        raise AssertionError


def test_a_cluster_that_does_not_take_us_is_given_up_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[str | None] = []

    def init(**settings: object) -> None:
        tries.append(os.environ.get("RAY_NUM_REDIS_GET_RETRIES"))
        raise ConnectionError("Failed to connect")

    monkeypatch.setattr("ray.init", init)
    monkeypatch.delenv("RAY_NUM_REDIS_GET_RETRIES", raising=False)
    for address, own, said in (("auto", None, "5"), ("auto", "40", "40"), ("local", None, None)):
        if own:
            monkeypatch.setenv("RAY_NUM_REDIS_GET_RETRIES", own)
        with pytest.raises(EngineError), ray_at(address):
            raise AssertionError
        assert (tries.pop(), os.environ.get("RAY_NUM_REDIS_GET_RETRIES")) == (said, own)
        monkeypatch.delenv("RAY_NUM_REDIS_GET_RETRIES", raising=False)


def test_an_interrupt_while_ray_begins_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    def init(**settings: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        done.append("begun")

    monkeypatch.setattr("ray.init", init)
    monkeypatch.setattr("ray.shutdown", lambda: done.append("ended"))
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), ray_at("local"):
        raise AssertionError
    assert done == ["begun", "ended"]
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("mode", [None, "disabled", "token"])
def test_the_environment_is_afterwards_what_it_was(mode: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    if mode is not None:
        monkeypatch.setenv("RAY_AUTH_MODE", mode)
    monkeypatch.setenv("GITHUB_PAT", "x")
    before, within = dict(os.environ), {}

    def init(**settings: object) -> None:
        os.environ.setdefault("RAY_AUTH_MODE", "token")  # as Ray does
        within.update(os.environ)

    monkeypatch.setattr("ray.init", init)
    with ray_at("local"):
        assert os.environ["GITHUB_PAT"] == "x"
    assert within["RAY_AUTH_MODE"] == (mode or "token")
    assert "GITHUB_PAT" not in within
    assert dict(os.environ) == before


def test_a_cluster_without_authentication_can_be_joined(ray: Any, tmp_path: Path) -> None:
    assert ray_session.TOKEN.is_file()  # since the other cluster was begun
    with begun(RAY_AUTH_MODE="disabled") as (address, _):
        asked = ("study", "distribution", "--model", TOY.model, "--prompt", "What?", "--items", "2", "--ray", address)
        refused = blinkscope(*asked, "-o", "run.db", cwd=tmp_path, RAY_AUTH_MODE="token")
        assert refused.returncode == 1
        assert "set RAY_AUTH_MODE=disabled" in refused.stderr
        found = blinkscope(*asked, "-o", "run.db", cwd=tmp_path, RAY_AUTH_MODE="disabled")
        assert "2 of 2 items" in found.stderr


def test_the_token_of_the_hub_reaches_the_workers_of_a_local_cluster(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    work = study_of("distribution").work
    asked = replace(
        study_of("distribution"),
        work=lambda desk: __import__("os").environ["HF_TOKEN"] == "hf_secret" and work(desk),
    )
    found = run_study(asked, SPECS["distribution"], tmp_path / "run.db", workers=Cluster())
    assert (
        found.to_json() == run_study(study_of("distribution"), SPECS["distribution"], tmp_path / "alone.db").to_json()
    )


def test_a_worker_gets_the_documents_of_its_item_alone(tmp_path: Path) -> None:
    run_study(study_of("distribution"), SPECS["distribution"], tmp_path / "run.db")
    with Run.create_or_open(tmp_path / "run.db", Run.open(tmp_path / "run.db").spec) as run:
        for number in (0, 1, 11, BESIDE + 1):
            run.put_document(named("said", number), {"by": number})
        shift = Shift(run, deque(), Whole(0))
        shift.store([Write("put_document", ("late 1", {}))])

        def held(number: int) -> set[str]:
            return set(Held.of(run, Task(number, BESIDE + number, StudyItem("", {})), shift.documents, {}).documents)

        assert held(0) == {"said"}
        assert held(1) == {"said 1", f"said {BESIDE + 1}", "late 1"}
        assert held(2) == set()


@dataclass
class Resources:
    """What a cluster says that it has."""

    there: dict[str, float]

    def cluster_resources(self) -> dict[str, float]:
        return self.there


def test_a_worker_asks_for_what_its_model_computes_on() -> None:
    boxes = Resources({"CPU": 32.0, "GPU": 8.0})
    plain = Resources({"CPU": 4.0})

    def asked(resources: Resources, model: str, **options: object) -> list[dict[str, float]]:
        return [dict(place.resources) for place in _places(resources, model, options)]

    for model in ("smollm2", "hf:org/model", "vllm:org/model", "diffusion:digits", "diffusers:folder"):
        assert asked(boxes, model) == [{"num_cpus": 1, "num_gpus": 1}] * 8
        assert asked(boxes, model, device="cpu") == [{"num_cpus": 1}] * 32
        assert asked(plain, model) == [{"num_cpus": 1}] * 4
    for model in ("toy:fork", "gguf:file.gguf"):
        assert asked(boxes, model) == [{"num_cpus": 1}] * 32
    places = _places(boxes, "http://a:1/v1,http://b:2/v1#m", {})
    assert [(place.model, dict(place.resources)) for place in places] == [
        ("http://a:1/v1#m", {"num_cpus": 0}),
        ("http://b:2/v1#m", {"num_cpus": 0}),
    ]
    assert _places(plain, "smollm2", {})[0].options["batch_bytes"] == BATCH_BYTES
    assert _places(plain, "smollm2", {"batch_bytes": 7})[0].options["batch_bytes"] == 7
    assert "batch_bytes" not in _places(boxes, "smollm2", {})[0].options


def test_keys_are_no_part_of_an_environment() -> None:
    others = ("PATH", "PWD", "OLDPWD", "BLINKSCOPE_KEY_FILE", "TOKENIZERS_PARALLELISM", "HF_HOME", "KEYBOARD", "COMPAT")
    kept = dict.fromkeys(others, "y")
    keys = (
        "BLINKSCOPE_KEYS",
        "HF_TOKEN",
        "OPENAI_API_KEY",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_ACCESS_KEY_ID",
        "MY_PASSWORD",
        "MYTOKEN",
        "SSHKEY",
        "GITHUB_PAT",
        "PGPASSWORD",
        "MYSQL_PWD",
        "DB_PASS",
        "GPG_PASSPHRASE",
    )
    assert without_secrets({**kept, **dict.fromkeys(keys, "x")}) == kept


def test_each_server_alone_keeps_the_settings_of_all() -> None:
    assert one_each("http://a:1/v1,https://b/x/v1?dialect=vllm&timeout=5#org/m") == (
        "http://a:1/v1?dialect=vllm&timeout=5.0#org/m",
        "https://b/x/v1?dialect=vllm&timeout=5.0#org/m",
    )
    assert one_each("http://a:1") == ("http://a:1/v1",)


def gone(processes: list[psutil.Process]) -> None:
    """Wait until all of them have ended. Those that help Ray notice a kill only a minute later."""
    _, alive = psutil.wait_procs(processes, timeout=120)
    assert not alive


@pytest.mark.slow
def test_a_killed_study_goes_on_and_leaves_no_process_and_no_key(tmp_path: Path) -> None:
    key = "sk-very-secret"
    asked = ("study", "cot", "--items", "4", "--from-text", "--max-new-tokens", "14", "--error", "0.12", "--seed", "1")
    # So slow that an item's first draw comes more than half a second after its work began, and is stored at once.
    with serving("vllm", toy=HTTP_TOY, key=key, latency=0.3) as server:
        environment = {"BLINKSCOPE_KEYS": f"{server.url.split('/')[2]}={key}"}
        asked = (*asked, "--model", f"{server.url}?concurrency=8")
        plain = blinkscope(*asked, "-o", "alone.db", "--json", cwd=tmp_path, **environment)
        assert plain.returncode == 0, plain.stderr
        command = [sys.executable, "-m", "blinkscope.cli.main", *asked, "-o", "run.db", "--ray"]
        settings: dict[str, Any] = {"cwd": tmp_path, "env": {**os.environ, **environment}}
        server.hold(answers=len(server.arrived) * 3 // 4)  # it cannot be finished before it is killed
        driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **settings)
        wait_for(1, tmp_path / "run.db", driver)
        processes = psutil.Process(driver.pid).children(recursive=True)
        names = [name_of(child) for child in processes]
        assert any(name.startswith("ray::Worker") for name in names)
        assert not any("dashboard" in name.lower() and "agent" not in name.lower() for name in names)
        folders: set[str] = set()
        for child in processes:
            with suppress(psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
                assert key.encode() not in Path(f"/proc/{child.pid}/environ").read_bytes()
                folders.update(re.findall(r"/\S+/blinkscope-\w+", str(child.cmdline()))[:1])
        (folder,) = folders
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        server.release()
        before = drawn(tmp_path / "run.db")
        found = blinkscope(*asked, "-o", "run.db", "--ray", "--json", cwd=tmp_path, **environment)
        assert found.returncode == 0, found.stderr
        assert "items, 0 at work" in found.stderr
        assert json.loads(found.stdout) == json.loads(plain.stdout)
        assert before < drawn(tmp_path / "run.db")
        assert content(tmp_path / "run.db") == content(tmp_path / "alone.db")
        assert key.encode() not in (tmp_path / "run.db").read_bytes()
    gone(processes)
    logs = [file for file in Path(folder).rglob("*") if file.is_file()]
    assert len(logs) > 5
    assert not [file for file in logs if key.encode() in file.read_bytes()]
    shutil.rmtree(folder)


def drawn(path: Path) -> set[tuple[int, int, int]]:
    """Keys of the draws in a run file."""
    with Run.open(path) as run:
        return {(number, *key) for number in generations_of(run) for key in run.draws(number)}
