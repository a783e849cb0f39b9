"""Folders of images, with one folder per class."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ddjax.data.dataset import Dataset
from ddjax.data.labels import read_targets
from ddjax.data.registry import DATASETS, DatasetEntry, Wanted
from ddjax.data.splits import note, split
from ddjax.errors import InputError

_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif", ".tiff")
_TRAIN, _TEST = ("train", "training"), ("test", "testing", "val", "valid", "validation")


def read_images(wanted: Wanted, path: str) -> Dataset:
    """Read images from one folder per class; these folders are in `train` and `test` (or `val`), or in `path` itself.

    All images must have the same size. They are read as greyscale if all of them are greyscale, and as RGB otherwise.
    If there is neither a `test` nor a `val` folder, a fifth of the training images is drawn for testing.

    Raises:
      InputError: there are too few images, an image cannot be read, or the images differ in size.
    """
    root = Path(path).expanduser()
    notes: tuple[str, ...] = ()
    splits = {each.name.lower(): each for each in _folders(root)}
    train, test = (next((splits[name] for name in names if name in splits), None) for names in (_TRAIN, _TEST))
    apart = train is not None and (test is not None or any(_folders(train)))
    if train and apart:
        if others := sorted({*splits.values()} - {train, test}):
            notes = (f"images in {', '.join(each.name for each in others)} are not read",)
        root = train
    files, labels = _listed(root)
    if without := sorted({each.name for each in _folders(root)} - set(labels)):
        notes += (f"folders without images do not count as classes: {', '.join(without)}",)
    if apart and test:
        if test.name.lower() != "test":
            notes += (f"the test set is the folder {test.name}",)
        test_files, test_labels = _listed(test)
        x = _arrays(files + test_files, path)
        x, x_test = np.split(x, [len(files)])
        y, y_test = np.array(labels), np.array(test_labels)
    else:
        notes += (note(len(files)),)
        rows, test_rows = split(len(files), wanted.seed)
        x, y = _arrays(files, path), np.array(labels)
        x, y, x_test, y_test = x[rows], y[rows], x[test_rows], y[test_rows]
    if not len(y_test):
        raise InputError(
            f"{path}: {len(files)} images are too few to hold out a fifth for testing; at least 5 are needed"
        )
    targets = read_targets(y, y_test, (f"{path}: training folders", f"{path}: test folders"), "classification")
    return Dataset(
        x, targets.y_train, x_test, targets.y_test, targets.outputs, classes=targets.classes,
        notes=notes + targets.notes,
    )  # fmt: skip


def _folders(root: Path) -> list[Path]:
    return sorted(each for each in root.iterdir() if each.is_dir() and not each.name.startswith("."))


def _images(folder: Path) -> Iterator[Path]:
    for file in sorted(folder.rglob("*")):
        if file.suffix.lower() in _ENDINGS and not file.name.startswith("."):
            yield file


def _listed(root: Path) -> tuple[list[Path], list[str]]:
    """List the images in the class folders of `root`, and the class of each image."""
    found = [(file, folder.name) for folder in _folders(root) for file in _images(folder)]
    if not found:
        raise InputError(
            f"{root} has no folder with images ({', '.join(_ENDINGS[:3])}, …); put the images of each class in a "
            "separate folder"
        )
    return [file for file, _ in found], [name for _, name in found]


def _arrays(files: list[Path], path: str) -> np.ndarray:
    """Read images into one uint8 array, `[M, height, width]` or `[M, height, width, 3]`."""
    from PIL import Image

    def opened(file: Path, mode: str = "") -> tuple[tuple[int, int], str, np.ndarray | None]:
        try:
            with Image.open(file) as image:
                return image.size, image.mode, np.asarray(image.convert(mode)) if mode else None
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise InputError(f"{file} is not a readable image: {error}") from None

    looks = [opened(file)[:2] for file in files]
    size = looks[0][0]
    for file, (other, _) in zip(files, looks, strict=True):
        if other != size:
            raise InputError(
                f"{path}: images have different sizes, {size[0]}×{size[1]} in {files[0].name} and "
                f"{other[0]}×{other[1]} in {file.name}; resize all images to the same size"
            )
    for file, (_, mode) in zip(files, looks, strict=True):
        if mode[0] in "IF":
            raise InputError(
                f"{file} has more than 8 bits per value (Pillow's mode {mode}); save it with 8 bits, or save the "
                "images in a .npz file"
            )
    mode = "L" if {mode for _, mode in looks} <= {"1", "L", "LA"} else "RGB"
    x = np.empty((len(files), size[1], size[0], *((3,) if mode == "RGB" else ())), np.uint8)
    for row, file in enumerate(files):
        x[row] = opened(file, mode)[2]
    return x


def _recognize(path: Path) -> bool:
    return path.is_dir() and any(next(_images(folder), None) is not None for folder in _folders(path))


DATASETS.add(
    DatasetEntry("images", read_images, form="FOLDER with one folder of images per class", recognize=_recognize)
)
