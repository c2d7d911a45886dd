"""Pipelines of diffusers: steps are the schedulers', pictures are the pipelines', folders are read with care."""

from __future__ import annotations

import itertools
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from blinkscope.diffusion.folders import Loading, check_folder, open_pipeline
from blinkscope.diffusion.gaussian import GaussianDiffusion
from blinkscope.diffusion.models import Parameters
from blinkscope.diffusion.pipelines import pipeline_model
from blinkscope.diffusion.schedulers import noise_schedule
from blinkscope.errors import EngineError, UserError
from tests.diffusion import tiny_pipelines as tiny

PICTURE = (3, tiny.SIDE, tiny.SIDE)


def streams(n: int) -> list[np.random.Generator]:
    return [np.random.default_rng([3, i]) for i in range(n)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_all(tmp_path_factory.mktemp("pipelines"))


@pytest.fixture
def folder(folders: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A copy of one of them, to be spoiled."""
    return shutil.copytree(folders / getattr(request, "param", "unconditional"), tmp_path / "spoiled")


# --- schedulers -------------------------------------------------------------------------------------------------------

PLAIN = {"clip_sample": False}
SCHEDULERS: dict[str, tuple[Callable[[], Any], float]] = {
    "DDPM": (lambda: diffusers.DDPMScheduler(), 1),
    "DDPM, trailing, v, no signal at the end": (
        lambda: diffusers.DDPMScheduler(
            prediction_type="v_prediction", timestep_spacing="trailing", rescale_betas_zero_snr=True, **PLAIN
        ),
        1,
    ),
    "DDPM, cosine, x0": (
        lambda: diffusers.DDPMScheduler(prediction_type="sample", beta_schedule="squaredcos_cap_v2", **PLAIN),
        1,
    ),
    "DDIM, eta 1": (lambda: diffusers.DDIMScheduler(**PLAIN), 1),
    "DDIM, eta 0.3, leading": (lambda: diffusers.DDIMScheduler(steps_offset=1, **PLAIN), 0.3),
    "DDIM, eta 0": (lambda: diffusers.DDIMScheduler(**PLAIN), 0),
    "Euler": (lambda: diffusers.EulerDiscreteScheduler(timestep_spacing="trailing"), 0),
    "Euler, Karras levels, v": (
        lambda: diffusers.EulerDiscreteScheduler(use_karras_sigmas=True, prediction_type="v_prediction"),
        0,
    ),
    "ancestral Euler": (lambda: diffusers.EulerAncestralDiscreteScheduler(), 1),
    "EDM": (lambda: diffusers.EDMEulerScheduler(), 0),
    "EDM, v, exponential levels": (
        lambda: diffusers.EDMEulerScheduler(prediction_type="v_prediction", sigma_schedule="exponential"),
        0,
    ),
    "flow matching": (lambda: diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0), 0),
}


def network(y: torch.Tensor, told: torch.Tensor) -> torch.Tensor:
    """Any smooth function of a picture and of what it is told."""
    return torch.tanh(0.7 * y + 0.1 * torch.sin(told / 100)) + 0.05 * y.flip(-1)


def by_diffusers(scheduler: Any, steps: int, eta: float, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """The pictures of two streams as the scheduler's own steps make them."""
    rngs = streams(2)
    fresh = lambda *_, **__: torch.from_numpy(np.stack([rng.standard_normal(PICTURE) for rng in rngs]))  # noqa: E731
    monkeypatch.setattr(f"{type(scheduler).__module__}.randn_tensor", fresh, raising=False)
    scheduler.set_timesteps(steps)
    ratio = float(scheduler.sigmas[0]) if hasattr(scheduler, "sigmas") else 0.0
    y = fresh() * (1.0 if "FlowMatch" in type(scheduler).__name__ else math.hypot(1, ratio))
    options: dict[str, Any] = {"DDIMScheduler": {"eta": eta}}
    for t in scheduler.timesteps:
        given = scheduler.scale_model_input(y, t) if hasattr(scheduler, "scale_model_input") else y
        y = scheduler.step(network(given, t), t, y, **options.get(type(scheduler).__name__, {})).prev_sample
    return np.asarray(y.numpy())


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_run_is_the_run_of_its_scheduler(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make, eta = SCHEDULERS[name]
    theirs = by_diffusers(make(), 7, eta, monkeypatch)
    schedule = noise_schedule(make(), 7)
    ours = GaussianDiffusion(schedule.denoiser(of_arrays), schedule.times, PICTURE, eta).sample(streams(2))
    assert ours == pytest.approx(theirs, abs=2e-4)
    assert np.abs(ours).max() > 0.1


def of_arrays(y: np.ndarray, told: float) -> np.ndarray:
    return np.asarray(network(torch.from_numpy(y), torch.tensor(told)).numpy())


def test_churn_is_that_of_the_paper() -> None:
    """Karras and others (2022), algorithm 2, first order: the network is asked at the raised level.

    The step of diffusers asks it before the noise is added; their preconditioning is used here.
    """
    scheduler, rngs, churn = diffusers.EDMEulerScheduler(), streams(2), 3.0
    schedule = noise_schedule(scheduler, 7)
    sigmas = scheduler.sigmas.double()
    fresh = lambda: torch.from_numpy(np.stack([rng.standard_normal(PICTURE) for rng in rngs]))  # noqa: E731
    y = fresh() * math.hypot(1, float(sigmas[0]))
    for sigma, below in itertools.pairwise(sigmas):
        raised = sigma * (1 + min(churn / 7, math.sqrt(2) - 1))
        y = y + torch.sqrt(raised**2 - sigma**2) * fresh()
        given = scheduler.precondition_inputs(y, raised)
        x0 = scheduler.precondition_outputs(y, network(given, scheduler.precondition_noise(raised)), raised)
        y = y + (below - raised) * (y - x0) / raised
    ours = GaussianDiffusion(schedule.denoiser(of_arrays), schedule.times, PICTURE, 0, churn).sample(streams(2))
    assert ours == pytest.approx(y.numpy(), abs=2e-4)


def test_clipping_is_that_of_ddpm_at_any_eta() -> None:
    schedule = noise_schedule(diffusers.DDPMScheduler(clip_sample_range=0.5), 7)
    denoise = schedule.denoiser(lambda y, told: 3 * y)
    assert np.abs(denoise(np.linspace(-2, 2, 9)[:, None], 1.0)).max() == 0.5


def test_solvers_of_higher_order_lend_their_levels() -> None:
    solver = diffusers.DPMSolverMultistepScheduler(beta_schedule="scaled_linear")
    schedule = noise_schedule(solver, 20)
    assert "DPMSolverMultistepScheduler" in schedule.notes[0]
    plain = noise_schedule(diffusers.DDIMScheduler.from_config(solver.config), 20)
    assert (schedule.times == plain.times).all()
    assert plain.notes == ()


@pytest.mark.parametrize(
    ("make", "steps", "message"),
    [
        (lambda: diffusers.DDPMScheduler(), 0, "from 1 to 10,000"),
        (lambda: diffusers.DDPMScheduler(), 1001, "cannot be run in 1001 steps"),
        (lambda: diffusers.DDPMScheduler(thresholding=True), 5, "set thresholding to false"),
        (lambda: diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True), 5, "has use_dynamic_shifting"),
        (lambda: diffusers.VQDiffusionScheduler(num_vec_classes=4), 5, "a VQDiffusionScheduler cannot be read"),
    ],
)
def test_schedulers_that_make_no_sense_are_refused(make: Callable[[], Any], steps: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        noise_schedule(make(), steps)


# --- pictures ---------------------------------------------------------------------------------------------------------


def test_a_text_to_image_pipeline_makes_our_pictures() -> None:
    """Its own call with DDIM, eta 0, from the same latents: conditioning, guidance, latents and decoding agree."""
    pipe = tiny.stable_diffusion()
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = diffusers.DDIMScheduler(beta_schedule="scaled_linear", steps_offset=1, **PLAIN)
    start = np.random.default_rng(0).standard_normal((2, 4, tiny.SIDE, tiny.SIDE))
    for scale in (1.0, 3.0):
        given = torch.from_numpy(start).float()
        size = {"height": 2 * tiny.SIDE, "width": 2 * tiny.SIDE, "num_inference_steps": 5}
        theirs = pipe(["a cat"] * 2, latents=given, guidance_scale=scale, output_type="np", **size).images
        model = pipeline_model(pipe, Parameters(steps=5, eta=0, guidance=scale), prompt="a cat")
        sampler = model.sampler
        assert model.autoencoder is not None
        ours = model.autoencoder.decode(sampler.reverse(start, np.full(2, 5), streams(2)))  # type: ignore[attr-defined]
        assert (ours.transpose(0, 2, 3, 1) + 1) / 2 == pytest.approx(theirs, abs=1e-4)
        assert sampler.cost(5) == (5 if scale == 1 else 10)
        assert ("guidance = 3" in str(sampler.outside_theory)) == (scale == 3)
    other = pipeline_model(pipe, Parameters(steps=5, eta=0), prompt="dogs").sampler
    plain = pipeline_model(pipe, Parameters(steps=5, eta=0), prompt="a cat").sampler
    assert (
        np.abs(other.reverse(start, np.full(2, 5), streams(2)) - plain.reverse(start, np.full(2, 5), streams(2))).max()
        > 1e-4
    )  # type: ignore[attr-defined]


def test_a_transformers_class_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = tiny.transformer()
    pipe.set_progress_bar_config(disable=True)
    start = np.random.default_rng(0).standard_normal((2, 4, tiny.SIDE, tiny.SIDE))
    monkeypatch.setattr(
        "diffusers.pipelines.dit.pipeline_dit.randn_tensor", lambda **_: torch.from_numpy(start).float()
    )
    theirs = pipe([2, 2], guidance_scale=1.0, num_inference_steps=5, output_type="np").images
    model = pipeline_model(pipe, Parameters(steps=5, eta=0, class_=2))
    assert model.autoencoder is not None
    ours = model.autoencoder.decode(model.sampler.reverse(start, np.full(2, 5), streams(2)))  # type: ignore[attr-defined]
    assert (ours.transpose(0, 2, 3, 1) + 1) / 2 == pytest.approx(theirs, abs=1e-4)


def test_guidance_goes_past_the_class_by_its_scale() -> None:
    pipe, y = tiny.of_classes(), np.random.default_rng(1).standard_normal((2, *PICTURE))
    pipe.scheduler = diffusers.DDIMScheduler(**PLAIN)

    def x0(**asked: Any) -> np.ndarray:
        sampler = pipeline_model(pipe, Parameters(steps=5, **asked)).sampler
        assert isinstance(sampler, GaussianDiffusion)
        return sampler.denoise(y, float(sampler.times[3]))

    towards, without = x0(class_=1), x0(class_=3)
    assert np.abs(towards - without).max() > 1e-3
    assert x0(class_=1, null=3, guidance=2.5) == pytest.approx(without + 2.5 * (towards - without), abs=1e-6)


def test_pictures_go_through_the_autoencoder_and_back() -> None:
    """Its encoding is the pipeline's, scaled; a batch is decoded in parts."""
    pipe = tiny.stable_diffusion()
    model = pipeline_model(pipe, Parameters(steps=3), prompt="", batch_bytes=1)
    assert model.autoencoder is not None
    picture = np.tanh(np.random.default_rng(0).standard_normal(model.autoencoder.shape))
    latent = model.autoencoder.encode(picture)
    with torch.inference_mode():
        theirs = pipe.vae.encode(torch.from_numpy(picture[None]).float()).latent_dist.mean * 0.18215
    assert latent == pytest.approx(theirs[0].numpy(), abs=1e-6)
    several = np.stack([latent, 0 * latent, -latent])
    apart = np.concatenate([model.autoencoder.decode(one[None]) for one in several])
    assert model.autoencoder.decode(several) == pytest.approx(apart, abs=1e-6)
    assert model.sampler.batch == 1  # type: ignore[attr-defined]


def test_too_little_memory_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = tiny.unconditional()
    model = pipeline_model(pipe, Parameters(steps=3))

    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(pipe.unet, "forward", full)
    with pytest.raises(EngineError, match="2 pictures at a time do not fit into the memory of cpu; give --batch-bytes"):
        model.sampler.reverse_paths(streams(2))


PROMPTED, CLASSES = "stable_diffusion", "of_classes"


@pytest.mark.parametrize(
    ("kind", "asked", "prompt", "message"),
    [
        ("unconditional", {}, "a cat", "takes no prompt"),
        ("unconditional", {"class_": 1}, None, "has no classes"),
        ("unconditional", {"guidance": 2}, None, "neither a class nor a prompt"),
        (CLASSES, {}, None, "say which one, from 0 to 3, with [?]class=0"),
        (CLASSES, {"class_": 4}, None, "class is 4; this pipeline knows the numbers from 0 to 3"),
        (CLASSES, {"class_": 1, "null": -1}, None, "null is -1"),
        (CLASSES, {"class_": 1, "guidance": 2}, None, "for instance null=10"),
        (CLASSES, {"class_": 1, "null": 3, "guidance": -1}, None, "guidance is -1"),
        (PROMPTED, {}, None, "give one, '' for none"),
        (PROMPTED, {"class_": 1}, "a cat", "has no classes"),
        (PROMPTED, {"steps": 0}, "a cat", "from 1 to 10,000"),
        (PROMPTED, {"eta": 0.5, "churn": 2}, "a cat", "goes with eta = 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    kind: str, asked: dict[str, Any], prompt: str | None, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        pipeline_model(tiny.KINDS[kind](), Parameters(**asked), prompt=prompt)


def parts(unet: Any, vae: Any = None) -> SimpleNamespace:
    return SimpleNamespace(unet=unet, vae=vae, scheduler=diffusers.DDPMScheduler())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: parts(tiny.autoencoder()), "the unet is a AutoencoderKL"),
        (lambda: parts(None), "nothing that denoises"),
        (lambda: parts(tiny.unet(channels=5, out_channels=3)), "given 5 channels and answers with 3"),
        (lambda: parts(tiny.unet(channels=3), tiny.autoencoder()), "4 latent channels and the network 3"),
        (lambda: parts(tiny.unet(channels=4), tiny.unet()), "only AutoencoderKL"),
    ],
)
def test_networks_that_cannot_be_run_are_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        pipeline_model(make())


# --- folders ----------------------------------------------------------------------------------------------------------


def test_every_kind_of_folder_is_the_pipeline_that_was_saved(folders: Path) -> None:
    on_cpu = Loading(torch.device("cpu"), torch.float32)
    for kind, class_, prompt in [
        ("unconditional", None, None),
        (CLASSES, 1, None),
        ("transformer", 1, None),
        (PROMPTED, None, "a cat"),
    ]:
        of_class = "" if class_ is None else f"&class={class_}"
        model = open_pipeline(f"diffusers:{folders / kind}?steps=4{of_class}", prompt, on_cpu)
        saved = pipeline_model(tiny.KINDS[kind](), Parameters(steps=4, class_=class_), prompt=prompt)
        paths = saved.sampler.reverse_paths(streams(1))
        assert model.sampler.reverse_paths(streams(1)) == pytest.approx(paths, rel=1e-4, abs=1e-4)
        assert model.name == f"diffusers:{folders / kind}?steps=4&eta=1{of_class}"
        assert len(model.digest) == 64


def spoil(folder: Path, **parts: Any) -> None:
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, **parts}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: (f / "model_index.json").unlink(), "holds no pipeline of diffusers"),
        (lambda f: (f / "model_index.json").write_text("{"), "is no JSON"),
        (lambda f: (f / "model_index.json").write_text("[]"), "holds no JSON object"),
        (lambda f: (f / "model_index.json").write_text(" " * 2_000_000), "more than 1,000,000 bytes"),
        (lambda f: spoil(f, _class_name=["mine", "Mine"]), "code from a folder is never run"),
        (lambda f: spoil(f, unet=["mine", "Net"]), "which is no class of diffusers"),
        (lambda f: spoil(f, unet=None), "nothing denoises"),
        (lambda f: spoil(f, scheduler=None), "names no scheduler"),
        (lambda f: spoil(f, unet=["diffusers", "NoSuchNet"]), "cannot be read"),
        (lambda f: shutil.rmtree(f / "unet"), "lacks a part: there is no folder"),
        (lambda f: (f / "unet" / "config.json").unlink(), "lacks a part: there is no file"),
        (lambda f: (f / "scheduler" / "scheduler_config.json").unlink(), "lacks a part: there is no file"),
        (lambda f: next((f / "unet").glob("*.safetensors")).unlink(), "there are no weights"),
        (lambda f: next((f / "unet").glob("*.safetensors")).write_bytes(b"0" * 64), "cannot be read"),
    ],
)
def test_a_spoiled_folder_is_refused(folder: Path, change: Callable[[Path], Any], message: str) -> None:
    change(folder)
    with pytest.raises(UserError, match=message):
        open_pipeline(f"diffusers:{folder}?steps=2")


def pickled(folder: Path) -> None:
    next((folder / "unet").glob("*.safetensors")).unlink()
    torch.save(tiny.unet().state_dict(), folder / "unet" / "diffusion_pytorch_model.bin")


def test_pickled_weights_are_read_only_where_that_is_asked_for(folder: Path) -> None:
    pickled(folder)
    with pytest.raises(UserError, match=r"are pickled.*--allow-pickle"):
        open_pipeline(f"diffusers:{folder}?steps=2")
    model = open_pipeline(f"diffusers:{folder}?steps=2", loading=Loading(allow_pickle=True))
    saved = pipeline_model(tiny.unconditional(), Parameters(steps=2))
    assert model.sampler.reverse_paths(streams(1)) == pytest.approx(saved.sampler.reverse_paths(streams(1)), abs=1e-5)


def test_a_pickle_that_runs_code_is_not_run_even_then(folder: Path) -> None:
    pickled(folder)

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (folder / "ran",))

    torch.save({"conv_in.weight": Evil()}, folder / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(UserError, match="cannot be read"):
        open_pipeline(f"diffusers:{folder}?steps=2", loading=Loading(allow_pickle=True))
    assert not (folder / "ran").exists()


@pytest.mark.parametrize("folder", [PROMPTED], indirect=True)
def test_the_parts_of_a_text_to_image_pipeline(folder: Path) -> None:
    assert set(check_folder(folder)) == {"unet", "scheduler", "vae", "text_encoder", "tokenizer"}
    shutil.rmtree(folder / "tokenizer")
    with pytest.raises(UserError, match=r"lacks a part: there is no folder .*tokenizer"):
        check_folder(folder)


def test_places_that_are_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file"):
        open_pipeline(f"diffusers:{tmp_path / 'file'}")
    with pytest.raises(UserError, match=r"there is no folder '\./nowhere'"):
        open_pipeline("diffusers:./nowhere")

    def unreachable(name: str, **_: Any) -> str:
        raise OSError(f"no network to fetch {name}")

    monkeypatch.setattr(diffusers.DiffusionPipeline, "download", unreachable)
    with pytest.raises(UserError, match=r"no pipeline of that name with safetensors .* \(no network to fetch a/b\)"):
        open_pipeline("diffusers:a/b")


def test_a_name_on_the_hub_is_fetched(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def download(name: str, **options: Any) -> str:
        asked.update(options, name=name)
        return str(folder)

    monkeypatch.setattr(diffusers.DiffusionPipeline, "download", download)
    assert open_pipeline("diffusers:someone/pictures?steps=2").name == "diffusers:someone/pictures?steps=2&eta=1"
    assert asked == {"name": "someone/pictures", "use_safetensors": True}
