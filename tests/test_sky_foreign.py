"""SkyAR's network against a recorded input and output; its checkpoint and ONNX models as mattes."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from atlas.coords import Size
from atlas.errors import InputError
from preprocess.sky import __main__ as command
from preprocess.sky.choose import open_matter
from preprocess.sky.foreign import ForeignMatter, OnnxMatter, open_foreign
from preprocess.sky.network import SkyNetwork, load_network, save_weights
from preprocess.sky.onnx_file import OnnxGraph
from preprocess.sky.opencv_network import sky_network_onnx
from thirdparty.skyar import CoordConv, CoordResNet50, load_skyar

REFERENCE = Path(__file__).resolve().parents[2] / "shared" / "reference" / "skyar_reference"


def exact_values(index: int, shape: torch.Size, key: str) -> torch.Tensor:
    """The reference's weights, defined by integer arithmetic (see its README)."""
    is_norm = ".bn" in key or "downsample.1" in key
    if is_norm or key.endswith("num_batches_tracked"):
        value = 0.0
        if key.endswith("weight"):
            value = 0.2 if key.endswith("bn3.weight") else 1.0
        elif key.endswith("running_var"):
            value = 1.0
        return torch.full(shape, value)
    mask = np.uint64(2**32 - 1)
    count = int(np.prod(shape))
    u = np.arange(count, dtype=np.uint64) * np.uint64(2654435761)
    u = (u + np.uint64(index * 40503 + 12345)) & mask
    u = ((u ^ (u >> np.uint64(15))) * np.uint64(2246822519)) & mask
    u = ((u ^ (u >> np.uint64(13))) * np.uint64(3266489917)) & mask
    x = u.astype(np.float64) / 2**32 - 0.5
    x *= np.sqrt(12 * 2 / np.prod(shape[1:])) if len(shape) > 1 else 0.01
    return torch.from_numpy(x.astype(np.float32)).reshape(shape)


def test_height_channel_is_row_over_height():
    layer = CoordConv(1, 1, 1, 1, bias=False)
    torch.nn.init.zeros_(layer.conv.weight)
    layer.conv.weight.data[0, 1] = 1.0  # the appended channel alone
    rows = layer(torch.rand(2, 1, 4, 3))[1, 0, :, 2]
    torch.testing.assert_close(rows, torch.tensor([0.0, 0.25, 0.5, 0.75]))


@pytest.mark.shared
@pytest.mark.slow
@pytest.mark.skipif(not REFERENCE.is_dir(), reason="the reference cases are not here")
def test_network_gives_the_recorded_answer(tmp_path: Path):
    network = CoordResNet50()
    keys = [
        line.split("\t")[0] for line in (REFERENCE / "state_dict_keys.txt").read_text().splitlines()
    ]
    state = network.state_dict()
    assert list(state) == [key for key in keys if key]
    exact = {k: exact_values(i, v.shape, k).to(v.dtype) for i, (k, v) in enumerate(state.items())}
    torch.save(
        {"epoch_id": 7, "best_val_acc": np.float64(0.9), "model_G_state_dict": exact},
        tmp_path / "best_ckpt.pt",
    )
    case = np.load(REFERENCE / "network_case.npz")
    rgb = torch.from_numpy(case["input_rgb_384_u8"]).permute(2, 0, 1)[None].float() / 255
    with torch.inference_mode():
        answer = load_skyar(tmp_path / "best_ckpt.pt")(rgb)[0, 0].numpy()
    np.testing.assert_allclose(answer, case["output"], atol=1e-4)  # sums in another order


def test_a_missing_checkpoint_is_named(tmp_path: Path):
    with pytest.raises(InputError, match=r"best\.pt: no such file"):
        open_matter(str(tmp_path / "best.pt"))


def test_a_broken_checkpoint_is_named(tmp_path: Path):
    (tmp_path / "best.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(InputError, match="not a checkpoint of tensors"):
        load_skyar(tmp_path / "best.pt")


def test_another_networks_checkpoint_is_refused(tmp_path: Path):
    torch.save({"model_G_state_dict": {"a": torch.zeros(1)}}, tmp_path / "best.pt")
    with pytest.raises(InputError, match="holds no coord_resnet50"):
        load_skyar(tmp_path / "best.pt")


def test_a_checkpoint_of_other_shapes_is_refused(tmp_path: Path):
    torch.save({"conv_fpn1.conv.weight": torch.zeros(1)}, tmp_path / "best.pt")
    with pytest.raises(InputError, match="do not fit coord_resnet50"):
        load_skyar(tmp_path / "best.pt")


class Brightness(ForeignMatter):
    """Says that what is bright is sky."""

    size = Size(32, 64)

    def answer(self, small: np.ndarray) -> np.ndarray:
        return (small.mean(axis=2) > 128).astype(np.float32)


def test_a_foreign_answer_is_brought_to_the_frame():
    rgb = np.full((90, 160, 3), 30, np.uint8)
    rgb[:50] = 220
    matte = Brightness(Path("none.onnx")).matte(rgb)
    assert matte.shape == (90, 160)
    assert matte[:48].min() > 0.95
    assert matte[52:].max() < 0.05


def test_onnx_without_its_package_or_file_is_said(tmp_path: Path):
    with pytest.raises(InputError, match=r"onnxruntime|no such file"):
        open_foreign(tmp_path / "model.onnx")


def mean_model(path: Path) -> None:
    """An ONNX model that answers with the mean of the colours: opacity from brightness."""
    graph = OnnxGraph()
    answer = graph.convolution("x", np.full((1, 3, 1, 1), 1 / 3, np.float32), np.zeros(1, "f4"))
    path.write_bytes(graph.model(("x", [1, 3, 32, 64]), (answer, [1, 1, 32, 64])))


def test_onnx_model_answers(tmp_path: Path):
    pytest.importorskip("onnxruntime", reason="the ONNX matte needs onnxruntime")
    mean_model(tmp_path / "model.onnx")
    matter = open_matter(str(tmp_path / "model.onnx"))
    assert isinstance(matter, OnnxMatter)
    answer = matter.answer(np.full((32, 64, 3), 51, np.uint8))
    np.testing.assert_allclose(answer, 0.2, atol=1e-6)


def test_imagenet_colours_are_centred_and_scaled(tmp_path: Path):
    pytest.importorskip("onnxruntime", reason="the ONNX matte needs onnxruntime")
    mean_model(tmp_path / "sky_imagenet.onnx")
    matter = open_foreign(tmp_path / "sky_imagenet.onnx")
    answer = matter.answer(np.full((32, 64, 3), 255, np.uint8))
    mean, spread = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    logit = ((1 - mean) / spread).mean()  # beyond 1, so it is taken as a logit
    np.testing.assert_allclose(answer, 1 / (1 + np.exp(-logit)), atol=1e-5)


def write_street(folder: Path) -> None:
    rgb = np.full((90, 160, 3), 30, np.uint8)
    rgb[:50] = 220
    folder.mkdir()
    for t in range(3):
        cv2.imwrite(str(folder / f"{t:02d}.png"), rgb)


def test_an_onnx_model_serves_the_command(tmp_path: Path, monkeypatch, capsys):
    pytest.importorskip("onnxruntime", reason="the ONNX matte needs onnxruntime")
    mean_model(tmp_path / "model.onnx")
    write_street(tmp_path / "in")
    arguments = [str(tmp_path / "in"), "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["sky", *arguments, "--matter", str(tmp_path / "model.onnx")])
    command.main()
    matte = cv2.imread(str(tmp_path / "out" / "02.png"), -1)
    assert matte[:40].min() > 200  # the model is not sure of any sky
    assert matte[60:].max() < 20
    assert "3 matte(s)" in capsys.readouterr().out


@pytest.mark.slow
def test_a_skyar_checkpoint_serves_the_command(tmp_path: Path, monkeypatch):
    """Untrained weights in SkyAR's layout: what counts is that the file is taken and answers."""
    torch.manual_seed(0)
    torch.save({"model_G_state_dict": CoordResNet50().state_dict()}, tmp_path / "best_ckpt.pt")
    write_street(tmp_path / "in")
    arguments = [str(tmp_path / "in" / "00.png"), "--out", str(tmp_path / "out")]
    monkeypatch.setattr(
        sys, "argv", ["sky", *arguments, "--matter", str(tmp_path / "best_ckpt.pt")]
    )
    command.main()
    assert cv2.imread(str(tmp_path / "out" / "00.png"), -1).shape == (90, 160)


def test_our_network_as_onnx_answers_alike(tmp_path: Path):
    """The same weights by way of an ONNX file and onnxruntime."""
    runtime = pytest.importorskip("onnxruntime", reason="the ONNX matte needs onnxruntime")
    torch.manual_seed(1)
    save_weights(SkyNetwork(), tmp_path / "w.safetensors")
    session = runtime.InferenceSession(sky_network_onnx(tmp_path / "w.safetensors", Size(32, 64)))
    rgb = torch.rand(1, 3, 32, 64)
    rows = torch.linspace(-1, 1, 32).view(1, 1, 32, 1).expand(1, 1, 32, 64)
    (got,) = session.run(None, {"rgb": torch.cat([rgb * 2 - 1, rows], 1).numpy()})
    got = torch.nn.functional.interpolate(torch.from_numpy(got), size=(32, 64), mode="bilinear")
    with torch.inference_mode():
        wanted = load_network(tmp_path / "w.safetensors")(rgb)
    torch.testing.assert_close(got, wanted, atol=1e-3, rtol=1e-3)
