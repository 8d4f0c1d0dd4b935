import gzip
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from sklearn import datasets

from skipless.data import builtin
from skipless.data.builtin import DEBIAN_FASHION, find_fashion, load_digits, load_fashion, read_idx
from skipless.data.loading.loader import BatchKey
from skipless.data.memory import MemoryImages, channel_statistics
from skipless.errors import InputError


def idx(values: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, values.ndim]) + b"".join(int(n).to_bytes(4, "big") for n in values.shape)
    return header + values.astype(np.uint8).tobytes()


def write_fashion(folder: Path, *, zipped: bool) -> dict[str, np.ndarray]:
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    arrays = {
        "train-images-idx3-ubyte": generator.integers(0, 256, (20, 28, 28)),
        "train-labels-idx1-ubyte": np.arange(20) % 10,
        "t10k-images-idx3-ubyte": generator.integers(0, 256, (10, 28, 28)),
        "t10k-labels-idx1-ubyte": np.arange(10),
    }
    for name, values in arrays.items():
        content = idx(values)
        (folder / (f"{name}.gz" if zipped else name)).write_bytes(gzip.compress(content) if zipped else content)
    return arrays


def test_digits_are_split_once_and_for_all() -> None:
    train, test, classes = load_digits()
    assert (len(train), len(test), len(classes)) == (1397, 400, 10)
    everything = torch.cat([train.images, test.images]).flatten(1)
    original = torch.from_numpy(datasets.load_digits().data * 15).byte()
    order = [np.lexsort(rows.numpy().T) for rows in (everything, original)]
    assert torch.equal(everything[order[0]], original[order[1]])  # every image is in one of the two parts
    assert test.labels[:12].tolist() == [2, 7, 4, 0, 4, 2, 7, 7, 9, 1, 9, 0]  # and always in the same one


def test_images_are_normalised_by_the_training_part() -> None:
    train, test, _ = load_digits()
    pixels, labels = train.__getitems__(BatchKey(0, 0, torch.arange(len(train))))
    assert pixels.mean().abs() < 1e-5
    assert (pixels.std(correction=0) - 1).abs() < 1e-5
    assert torch.equal(labels, train.labels)
    assert torch.equal(test.mean, train.mean)


def test_digits_without_scikit_learn_say_how_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(InputError, match=r"pip install 'scikit-learn>="):
        load_digits()


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("layout", ["", "FashionMNIST/raw"])
def test_fashion_is_read_in_every_layout(tmp_path: Path, zipped: bool, layout: str) -> None:
    arrays = write_fashion(tmp_path / "data" / layout, zipped=zipped)
    train, test, classes = load_fashion(tmp_path / "data")
    np.testing.assert_array_equal(train.images[:, 0].numpy(), arrays["train-images-idx3-ubyte"])
    np.testing.assert_array_equal(test.labels.numpy(), arrays["t10k-labels-idx1-ubyte"])
    assert len(classes) == 10
    assert torch.allclose(train.mean, torch.tensor(arrays["train-images-idx3-ubyte"].mean(), dtype=torch.float32))


def test_corrupt_files_are_named(tmp_path: Path) -> None:
    write_fashion(tmp_path / "data", zipped=True)
    file = tmp_path / "data" / "train-images-idx3-ubyte.gz"
    content = file.read_bytes()
    broken = {
        "cut": content[:-1000],
        "flipped": content[:500] + bytes(100) + content[600:],
        "no gzip": b"<html>not found</html>",
        "short array": gzip.compress(gzip.decompress(content)[:-1]),
        "floats": gzip.compress(b"\0\0\x0d\1" + bytes(20)),
    }
    for what, damaged in broken.items():
        file.write_bytes(damaged)
        with pytest.raises(InputError, match=r"train-images-idx3-ubyte\.gz'.*fetch it again"):
            load_fashion(tmp_path / "data")
        assert what
    file.unlink()
    assert find_fashion(tmp_path / "data") is None
    with pytest.raises(InputError, match="no Fashion-MNIST in"):
        load_fashion(tmp_path / "data")


def test_images_and_labels_must_match(tmp_path: Path) -> None:
    write_fashion(tmp_path / "data", zipped=False)
    (tmp_path / "data" / "t10k-labels-idx1-ubyte").write_bytes(idx(np.arange(9)))
    with pytest.raises(InputError, match=r"val images \(10, 28, 28\) do not fit labels \(9,\)"):
        load_fashion(tmp_path / "data")
    (tmp_path / "data" / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(InputError, match="lacks 't10k-labels-idx1-ubyte'"):
        load_fashion(tmp_path / "data")


def test_offline_both_remedies_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise RuntimeError("Error downloading train-images-idx3-ubyte.gz")

    monkeypatch.setattr(builtin, "DEBIAN_FASHION", tmp_path / "nowhere")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(torchvision.datasets, "FashionMNIST", offline)
    with pytest.raises(InputError, match=r"apt install dataset-fashion-mnist.*copy its four idx files"):
        load_fashion()


def test_a_download_is_found_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(root: str, download: bool) -> None:
        assert download
        write_fashion(Path(root) / "FashionMNIST" / "raw", zipped=True)

    monkeypatch.setattr(builtin, "DEBIAN_FASHION", tmp_path / "nowhere")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(torchvision.datasets, "FashionMNIST", download)
    assert len(load_fashion()[0]) == 20
    monkeypatch.delattr(torchvision.datasets, "FashionMNIST")
    assert len(load_fashion()[0]) == 20  # without a second download


def test_an_idx_header_longer_than_its_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "short").write_bytes(b"\0\0\x08\3\0\0")
    with pytest.raises(InputError, match=r"'.*short' is cut off"):
        read_idx(tmp_path / "short")


@pytest.mark.skipif(not DEBIAN_FASHION.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")
def test_the_real_fashion_mnist() -> None:
    train, test, _ = load_fashion()
    assert train.images.shape == (60_000, 1, 28, 28)
    assert test.labels.bincount().tolist() == [1000] * 10
    assert train.mean.item() / 255 == pytest.approx(0.2860, abs=1e-4)  # as everybody quotes it
    assert train.std.item() / 255 == pytest.approx(0.3530, abs=1e-4)


def test_statistics_are_those_of_float64() -> None:
    images = torch.randint(0, 256, (5, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mean, std = channel_statistics(images)
    exact = images.double().transpose(0, 1).flatten(1)
    assert torch.allclose(mean.double(), exact.mean(1))
    assert torch.allclose(std.double(), exact.std(1, correction=0))


def shifting(shift: int = 2, *, flip: bool = True) -> MemoryImages:
    images = torch.arange(64, dtype=torch.uint8).view(1, 1, 8, 8).repeat(40, 1, 1, 1) + 1
    return MemoryImages(images, torch.arange(40), torch.zeros(1), torch.ones(1), shift=shift, flip=flip)


def test_shifts_depend_on_seed_epoch_and_sample_alone() -> None:
    data = shifting()
    batch, _ = data.__getitems__(BatchKey(0, 0, torch.arange(40)))
    lone, _ = data.__getitems__(BatchKey(0, 0, torch.tensor([7])))
    assert torch.equal(batch[7], lone[0])
    assert not torch.equal(batch[7], batch[8])
    for other in (BatchKey(0, 1, torch.arange(40)), BatchKey(1, 0, torch.arange(40))):
        assert not torch.equal(batch, data.__getitems__(other)[0])


def test_shifted_images_are_windows_of_the_padded_one() -> None:
    data = shifting()
    padded = torch.nn.functional.pad(data.images[0].float(), (2, 2, 2, 2))
    windows = [padded[:, i : i + 8, j : j + 8] for i in range(5) for j in range(5)]
    possible = torch.stack([*windows, *(window.flip(-1) for window in windows)])
    batch, _ = data.__getitems__(BatchKey(0, 0, torch.arange(40)))
    found = {int((possible == image).flatten(1).all(1).nonzero()[0, 0]) for image in batch}
    assert len(found) > 10
    assert max(found) >= 25 > min(found)  # some mirrored, some not


def test_resizing_keeps_a_constant_image() -> None:
    data = MemoryImages(
        torch.full((2, 1, 8, 8), 200, dtype=torch.uint8), torch.zeros(2).long(), torch.zeros(1), torch.ones(1)
    )
    assert torch.equal(data.resized(16).images, torch.full((2, 1, 16, 16), 200, dtype=torch.uint8))
    assert data.resized(8) is data
