"""TensorFlow Datasets: its own builders prepare data sets, which are read back without TensorFlow."""

import io
import sys

import numpy as np
import pytest
from PIL import Image

from ddjax.data import load_dataset
from ddjax.data.sounds import log_mel
from ddjax.errors import InputError

tfds = pytest.importorskip("tensorflow_datasets")
RNG = np.random.default_rng(0)
SPEAKERS = ("ann", "bob", "eve")


def png(array):
    file = io.BytesIO()
    Image.fromarray(array).save(file, "png")
    file.seek(0)
    return file


def example(number):
    return {
        "image": RNG.integers(0, 256, (6, 5, 3), np.uint8),
        "text": f"word{number % 7} is number {number}",
        "vector": RNG.normal(size=3).astype(np.float32),
        "size": number,
        "sound": RNG.integers(-9999, 9999, 600 + number % 3).astype(np.int64),
        "label": number % 4,
        "amount": np.float32(number / 3 + 0.1),
        "speaker": SPEAKERS[number % 3],
        "ragged": RNG.normal(size=(1 + number % 2,)).astype(np.float32),
    }


EXAMPLES = {"train": [example(i) for i in range(40)], "test": [example(i) for i in range(12)]}
EXAMPLES["hidden"] = [each | {"label": -1} for each in EXAMPLES["test"]]
EXAMPLES["partly"] = EXAMPLES["hidden"] + EXAMPLES["train"]
NAMES = ["zebra", "ant", "cat", "dog"]  # not in alphabetical order


def builder(name, splits, supervised):
    f = tfds.features
    features = {
        "image": f.Image(shape=(6, 5, 3)),
        "text": f.Text(),
        "vector": f.Tensor(shape=(3,), dtype=np.float32),
        "size": f.Scalar(dtype=np.int64),
        "sound": f.Tensor(shape=(None,), dtype=np.int64),
        "label": f.ClassLabel(names=NAMES),
        "amount": f.Scalar(dtype=np.float32),
        "speaker": f.Text(),
        "ragged": f.Tensor(shape=(None,), dtype=np.float32),
    }

    def info(self):
        return tfds.core.DatasetInfo(builder=self, features=f.FeaturesDict(features), supervised_keys=supervised)

    def generate(self, examples):
        for number, each in enumerate(examples):
            yield number, each | {"image": png(each["image"])}

    def generators(self, manager):
        return {to: self._generate_examples(EXAMPLES[of]) for to, of in splits.items()}

    body = {
        "VERSION": tfds.core.Version("1.0.0"),
        "_info": info,
        "_split_generators": lambda self, manager: {
            to: self._generate_examples(EXAMPLES[of]) for to, of in splits.items()
        },
        "_generate_examples": generate,
        "pkg_dir_path": None,
    }
    return type(name, (tfds.core.GeneratorBasedBuilder,), body)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("tfds")
    both, one = {"train": "train", "test": "test"}, {"train": "train"}
    for name, splits, supervised in (
        ("Pictures", both, ("image", "label")), ("Single", one, ("image", "label")), ("Unsaid", both, None),
        ("Hidden", {"train": "train", "test": "hidden", "validation": "test"}, ("image", "label")),
        ("Partly", {"train": "partly", "test": "test"}, ("image", "label")),
    ):  # fmt: skip
        builder(name, splits, supervised)(data_dir=out, file_format="array_record").download_and_prepare()
    return str(out)


def load(folder, name="unsaid", **wanted):
    return load_dataset(f"tfds:{name}", data_dir=folder, **wanted)


def kept(key, split="train"):
    return [each[key] for each in EXAMPLES[split]]


def in_order(found, expected):
    """Whether the sets of rows are equal; TensorFlow Datasets shuffles rows when it prepares them."""
    found, expected = (sorted(np.asarray(row).tobytes() for row in rows) for rows in (found, expected))
    assert found == expected


def test_images_by_supervised_keys(folder):
    dataset = load(folder, "pictures")
    in_order(dataset.x_train, kept("image"))
    in_order(dataset.x_test, kept("image", "test"))
    assert dataset.classes == tuple(NAMES)
    labels = {each["image"].tobytes(): each["label"] for each in EXAMPLES["train"]}
    assert [labels[image.tobytes()] for image in dataset.x_train] == dataset.y_train.tolist()
    assert "tensorflow" not in sys.modules


def test_a_version_can_be_named(folder):
    in_order(load(folder, "pictures:1.0.0").x_train, kept("image"))


def test_a_missing_test_split_is_drawn_by_the_seed(folder):
    first, again, other = (load(folder, "single", seed=seed) for seed in (0, 0, 1))
    assert (len(first.y_train), len(first.y_test)) == (32, 8)
    in_order([*first.x_train, *first.x_test], kept("image"))
    np.testing.assert_array_equal(first.x_test, again.x_test)
    assert not np.array_equal(first.x_test, other.x_test)
    assert "there is no test set" in first.notes[0]


def test_numbers_texts_sounds_and_a_table(folder):
    numbers = load(folder, input_key="vector", target_key="amount")
    in_order(numbers.x_train, kept("vector"))
    assert numbers.y_train.shape == (40, 1)
    texts = load(folder, input_key="text", target_key="label")
    assert texts.tokens
    assert texts.x_train.shape == (40, 4)
    table = load(folder, input_key="vector+size+label", target_key="speaker")
    assert table.x_train.shape == (40, 3 + 1 + 4)
    assert table.classes == SPEAKERS
    assert [column.kind for column in table.columns] == ["number", "number", "category"]
    sounds = load(folder, input_key="sound", target_key="label", sample_rate=8000)
    in_order(sounds.x_train.round(3), log_mel(np.array([sound[:600] for sound in kept("sound")]), 8000).round(3))


def test_hidden_labels_are_no_class(folder):
    dataset = load(folder, "hidden")
    in_order(dataset.x_test, kept("image", "test"))
    assert dataset.notes == ("the labels of split 'test' are hidden (−1)", "the test set is split 'validation'")
    with pytest.raises(InputError, match="12 of 52 examples of train have no label"):
        load(folder, "partly")
    in_order(load(folder, "partly", unlabeled=True).x_train, kept("image", "partly"))


def test_owners_are_a_feature(folder):
    dataset = load(folder, "pictures", owner_key="speaker")
    assert dataset.owners == SPEAKERS
    speakers = {each["image"].tobytes(): each["speaker"] for each in EXAMPLES["train"]}
    assert [speakers[x.tobytes()] for x in dataset.x_train] == [dataset.owners[owner] for owner in dataset.owner]


@pytest.mark.parametrize(
    ("name", "wanted", "message"),
    [
        ("unsaid", {}, r"which feature is the input; name one with --input_key; its features are .*vector \(Tensor\)"),
        ("unsaid", {"input_key": "image"}, "name one with --target_key"),
        ("unsaid", {"input_key": "imag", "target_key": "label"}, "has no feature 'imag'; its features are"),
        ("unsaid", {"input_key": "label", "target_key": "label"}, "both an input and the target"),
        ("unsaid", {"input_key": "ragged", "target_key": "label"}, "'ragged' has shape .* must have the same shape"),
        ("unsaid", {"input_key": "text+vector", "target_key": "label"}, "'text' holds texts"),
        ("pictures", {"owner_key": "speakr"}, "did you mean 'speaker'"),
        ("mnist", {}, "tfds:mnist is not prepared in .*tfds build mnist --file_format=array_record .*tfds-prepare"),
        ("no_such_data", {}, "TensorFlow Datasets does not know it either"),
        ("pictures:7.0.0", {}, "cannot be loaded at version 7.0.0, only: 1.0.0"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_remedy(folder, name, wanted, message):
    with pytest.raises(InputError, match=message):
        load(folder, name, **wanted)
