"""PCA beside sklearn-free algebra, its signs, its foreground, and the pictures."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from reference.scenes import Squares

from skipless.errors import InputError
from skipless.evaluators.pictures.grids import mask_legend, mask_picture, palette, picture_grid, save_png
from skipless.evaluators.pictures.pca import pca_colours, pca_picture, principal_components
from skipless.evaluators.probe.pipeline import probe_model
from skipless.evaluators.probe.prediction_picture import prediction_picture
from skipless.models import create_model


def draw(n: int, d: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=generator) * torch.logspace(0.5, -0.5, d) + 3


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize(("n", "d"), [(50, 8), (6, 20), (300, 3)])
def test_components_are_those_of_the_svd_with_a_sign_of_their_own(n: int, d: int, seed: int) -> None:
    x = draw(n, d, seed)
    vectors, shares, mean = principal_components(x)
    s, vh = np.linalg.svd((x - x.mean(0)).double().numpy(), full_matrices=False)[1:]
    assert np.allclose(shares.numpy(), (s**2 / (s**2).sum())[:3], atol=1e-6)
    assert torch.allclose(mean, x.double().mean(0))
    for i in range(3):
        assert abs(vectors[:, i].numpy() @ vh[i]) == pytest.approx(1, abs=1e-5)
        assert vectors[vectors[:, i].abs().argmax(), i] > 0


def test_colours_do_not_depend_on_the_run() -> None:
    x = [draw(12, 8, i) for i in range(3)]
    grids = [(3, 4)] * 3
    before = pca_colours(x, grids)
    shuffled = pca_colours([x[2], x[0], x[1]], grids)
    disturbed = pca_colours([part + 1e-6 * draw(12, 8, 9) for part in x], grids)
    for i, image in enumerate(before.images):
        for other in (shuffled.images[(i + 1) % 3], disturbed.images[i]):
            assert np.abs(image.astype(int) - other).max() <= 1
    assert before.n == (36,)
    assert len(before.explained) == 1


def test_a_set_shares_its_components_and_images_have_their_own() -> None:
    x, grids = [draw(12, 8, i) for i in range(2)], [(3, 4), (4, 3)]
    jointly, singly = pca_colours(x, grids), pca_colours(x, grids, scope="image")
    assert singly.n == (12, 12)
    for i in range(2):
        assert np.array_equal(singly.images[i], pca_colours([x[i]], [grids[i]]).images[0])
        assert singly.images[i].shape == (*grids[i], 3)
    assert not np.array_equal(jointly.images[0], singly.images[0])


def test_colours_are_percentiles_of_the_projections() -> None:
    x = draw(200, 6)
    x[7] *= 1000  # a patch of huge norm
    vectors, _, mean = principal_components(x)
    values = ((x.double() - mean) @ vectors).numpy()
    low, high = np.percentile(values, (5, 90), axis=0)
    expected = np.round(255 * ((values - low) / (high - low)).clip(0, 1))
    found = pca_colours([x], [(10, 20)], percentiles=(5, 90)).images[0].reshape(200, 3)
    assert np.array_equal(found, expected)
    assert len(np.unique(found[:, 0])) > 50  # the rest is not grey


@pytest.mark.parametrize("flip", [1, -1])
def test_the_foreground_is_the_side_away_from_the_border(flip: int) -> None:
    inside = np.zeros((8, 8), dtype=bool)
    inside[2:6, 3:6] = True
    x = 0.1 * draw(64, 5) + flip * 10 * torch.from_numpy(inside.flatten())[:, None] * torch.ones(5)
    shown = pca_colours([x], [(8, 8)], foreground=True)
    assert np.array_equal(shown.foreground[0], inside)
    assert (shown.images[0][~inside] == 0).all()
    assert shown.images[0][inside].any()
    assert shown.n == (12,)
    assert pca_colours([x], [(8, 8)]).foreground[0].all()


def test_features_without_spread_are_grey() -> None:
    shown = pca_colours([torch.ones(4, 2)], [(2, 2)], foreground=True)
    assert (shown.images[0] == 128).all()
    assert shown.explained == ((0.0, 0.0, 0.0),)


def test_bad_requests_are_one_line(unchecked: None) -> None:
    x = draw(6, 4)
    for words, call in (
        ("features of 1 images with 2 grids", lambda: pca_colours([x], [(2, 3), (2, 3)])),
        ("image 0 has features", lambda: pca_colours([x], [(2, 2)])),
        ("of image 0 are not finite", lambda: pca_colours([x / 0], [(2, 3)])),
        ("the lower first", lambda: pca_colours([x], [(2, 3)], percentiles=(99, 1))),
        ("choose from set, image", lambda: pca_colours([x], [(2, 3)], scope="all")),
        ("needs rows", lambda: picture_grid([], cell=(4, 4))),
        ("1 captions for 2 columns", lambda: picture_grid([[Image.new("L", (2, 2))] * 2], cell=(4, 4), columns=("a",))),
    ):
        with pytest.raises(InputError, match=words) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_models_stand_side_by_side(tmp_path: Path) -> None:
    images = [Squares(3).load(i)[0] for i in range(3)]
    columns = {"skip": [draw(12, 8, i) for i in range(3)], "skipless": [draw(12, 5, i + 3) for i in range(3)]}
    picture, colours = pca_picture(images, columns, [(3, 4)] * 3, cell=(30, 40))
    first = np.array(picture)
    left, top = 4, 4 + 15 + 4  # below the titles
    assert all((first[top + 3 * 34 :] == colour).all(-1).any() for colour in 255 * np.eye(3))  # the legend
    for row in range(3):
        for column, name in enumerate(columns, start=1):
            y, x = top + row * 34, left + column * 44
            assert np.array_equal(first[y + 5 : y + 30 : 10, x + 5 : x + 40 : 10], colours[name].images[row])
    path = save_png(picture, tmp_path / "new" / "pca.png")
    assert np.array_equal(np.array(Image.open(path)), first)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write the picture"):
        save_png(picture, tmp_path / "file" / "pca.png")


def test_masks_have_vocs_colours() -> None:
    assert palette(256)[[0, 1, 2, 15, 20, 255]].tolist() == [
        [0, 0, 0],
        [128, 0, 0],
        [0, 128, 0],
        [192, 128, 128],
        [0, 64, 128],
        [224, 224, 192],
    ]
    assert len(np.unique(palette(256), axis=0)) == 256
    shown = np.array(mask_picture(torch.tensor([[0, 1, 255]]), 2, ignore=255))
    assert shown.tolist() == [[[0, 0, 0], [128, 0, 0], [255, 255, 255]]]
    legend = mask_legend([255, 2, 0, 2], ("ground", "red", "green"), ignore=255)
    assert legend == [("ground", (0, 0, 0)), ("green", (0, 128, 0)), ("ignored", (255, 255, 255))]
    assert mask_legend([1], ("ground", "red")) == [("red", (128, 0, 0))]


def test_predictions_stand_beside_truth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = create_model(
        "vit_tiny_patch16_224", skip=True, seed=0, img_size=32, patch_size=8, embed_dim=24, depth=1, num_heads=2
    )
    probe, val = probe_model(
        model,
        Squares(12),
        Squares(5, seed=1, broken=(0,)),
        folder=tmp_path,
        identity=("train", "val"),
        protocol="patch",
        multiscale=None,
        notify=lambda _: None,
    )
    seen: list[tuple[Sequence, dict]] = []

    def grid(rows: Sequence, **how: Any) -> Image.Image:
        seen.append((rows, how))
        return picture_grid(rows, **how)

    monkeypatch.setattr("skipless.evaluators.probe.prediction_picture.picture_grid", grid)
    picture = prediction_picture(probe, val, images=2, cell=48)
    assert picture is not None
    ((rows, told),) = seen
    mask, predicted = val.mask(1), probe.predict(val, 1, (0,), (40, 48))  # the first row is image 1
    assert mask is not None
    for shown, labels in zip(rows[0][1:], (mask, predicted), strict=True):
        whole = mask_picture(labels, 3, ignore=255).resize((48, 48), Image.Resampling.NEAREST)
        assert np.array_equal(np.array(shown), np.array(whole))  # no colour that is not in the legend
    assert told["columns"] == ["image", "truth", "prediction, block 0"]
    assert told["names"] == ["1", "2"]
    drawn = {tuple(colour) for row in rows for shown in row[1:] for colour in np.array(shown).reshape(-1, 3).tolist()}
    assert {colour for _, colour in told["legend"]} == drawn
    assert ("red", (128, 0, 0)) in told["legend"]
    assert ("ignored", (255, 255, 255)) in told["legend"]
    monkeypatch.setattr(val.data, "items", [SimpleNamespace(id=f"scene {index}") for index in range(5)], raising=False)
    prediction_picture(probe, val, images=2, cell=48)
    assert seen[-1][1]["names"] == ["scene 1", "scene 2"]
