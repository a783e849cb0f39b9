"""Files and folders as people have them: IDX, LIBSVM, tables, folders of images, texts and sounds in archives."""

import bz2
import gzip
import io
import re

import numpy as np
import pytest
from PIL import Image

from ddjax.data import load_dataset
from ddjax.data.sounds import log_mel
from ddjax.data.tokens import VOCABULARY, tokenize
from ddjax.errors import InputError

RNG = np.random.default_rng(0)


def idx(array):
    """An IDX file, as MNIST's authors describe it."""
    code = {"uint8": 8, "int8": 9, "int16": 11, "int32": 12, "float32": 13, "float64": 14}[str(array.dtype)]
    head = bytes([0, 0, code, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    return head + array.astype(array.dtype.newbyteorder(">")).tobytes()


def idx_folder(tmp_path, packed=True, test=True):
    x, y = RNG.integers(0, 256, (60, 5, 6), np.uint8), np.arange(60, dtype=np.uint8) % 4
    parts = {"train": slice(0, 40), "t10k": slice(40, 60)} if test else {"train": slice(0, 60)}
    for name, part in parts.items():
        for kind, array in (("images-idx3", x[part]), ("labels-idx1", y[part])):
            content = idx(array)
            if packed:
                (tmp_path / f"{name}-{kind}-ubyte.gz").write_bytes(gzip.compress(content))
            else:
                (tmp_path / f"{name}-{kind}-ubyte").write_bytes(content)
    return x, y


@pytest.mark.parametrize("packed", [True, False])
def test_idx_files_are_read_as_they_were_written(tmp_path, packed):
    x, y = idx_folder(tmp_path, packed)
    dataset = load_dataset(str(tmp_path))
    np.testing.assert_array_equal(dataset.x_train, x[:40])
    np.testing.assert_array_equal(dataset.x_test, x[40:])
    np.testing.assert_array_equal(dataset.y_train, y[:40])
    np.testing.assert_array_equal(dataset.y_test, y[40:])
    assert dataset.outputs == 4


def test_idx_files_without_a_test_set(tmp_path):
    idx_folder(tmp_path, test=False)
    dataset = load_dataset(str(tmp_path))
    assert (len(dataset.y_train), len(dataset.y_test)) == (48, 12)
    assert "12 of 60 examples are drawn for testing" in dataset.notes[0]


@pytest.mark.parametrize("dtype", ["int16", "int32", "float32", "float64"])
def test_idx_files_of_other_numbers(tmp_path, dtype):
    from ddjax.data.idx import read_idx

    array = RNG.integers(-100, 100, (3, 4)).astype(dtype)
    (tmp_path / "a").write_bytes(idx(array))
    found = read_idx(str(tmp_path / "a"))
    np.testing.assert_array_equal(found, array)
    assert found.dtype == array.dtype


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("train-images-idx3-ubyte.gz", lambda content: content[:-7], "not a readable IDX file"),
        ("t10k-labels-idx1-ubyte.gz", lambda content: gzip.compress(b"\0\0\x08\x01\0\0\0\x09" + bytes(8)), "8 bytes"),
        ("t10k-labels-idx1-ubyte.gz", lambda content: gzip.compress(b"hello"), "begins with the bytes 68 65 6c 6c"),
        ("t10k-labels-idx1-ubyte.gz", lambda content: gzip.compress(idx(np.arange(3, dtype=np.uint8))), "[3]"),
    ],
)
def test_malformed_idx_files_are_refused(tmp_path, name, change, message):
    idx_folder(tmp_path)
    file = tmp_path / name
    file.write_bytes(change(file.read_bytes()))
    with pytest.raises(InputError, match=re.escape(message)) as error:
        load_dataset(str(tmp_path))
    assert name in str(error.value)


def test_an_idx_folder_lacks_a_file(tmp_path):
    idx_folder(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(InputError, match="no IDX file of train labels"):
        load_dataset(str(tmp_path))


SPARSE = "+1 1:0.5 3:2 # a comment\n-1 2:1\n+1 3:-1e-1\n\n-1 1:1 2:1 3:1\n+1 2:7\n"
DENSE = [[0.5, 0, 2], [0, 1, 0], [0, 0, -0.1], [1, 1, 1], [0, 7, 0]]


@pytest.mark.parametrize(
    ("name", "test", "pack"),
    [
        ("a.libsvm", "a.t.libsvm", bytes),
        ("a.libsvm", "a.libsvm.t", bytes),
        ("a9a", "a9a.t", bytes),
        ("a.libsvm.gz", "a.libsvm.t.gz", gzip.compress),
        ("a.bz2", "a.t.bz2", bz2.compress),
    ],
)
def test_libsvm_with_a_test_file_beside_it(tmp_path, name, test, pack):
    (tmp_path / name).write_bytes(pack((SPARSE * 3).encode()))
    (tmp_path / test).write_bytes(pack(SPARSE.encode()))
    dataset = load_dataset(str(tmp_path / name))
    np.testing.assert_allclose(dataset.x_train, DENSE * 3, rtol=1e-6)
    np.testing.assert_allclose(dataset.x_test, DENSE, rtol=1e-6)
    np.testing.assert_array_equal(dataset.y_test, [1, 0, 1, 0, 1])
    assert dataset.classes == ("-1", "1")


def test_libsvm_without_one_and_other_targets(tmp_path):
    (tmp_path / "a.libsvm").write_text("".join(f"{i % 3 + 1} 1:{i}\n" for i in range(30)))
    dataset = load_dataset(str(tmp_path / "a.libsvm"))
    assert (len(dataset.y_train), len(dataset.y_test), dataset.classes) == (24, 6, ("1", "2", "3"))
    (tmp_path / "b.libsvm").write_text("".join(f"{i / 7} 0:{i}\n" for i in range(30)))
    dataset = load_dataset(str(tmp_path / "b.libsvm"))
    assert dataset.y_train.dtype.kind == "f"
    np.testing.assert_allclose(dataset.y_train[:, 0], dataset.x_train[:, 0] / 7, rtol=1e-6)


@pytest.mark.parametrize("line", ["+1 1:a", "+1 3:1 2:1", "one 1:1", "+1 -4:1", "+1,2 1:1"])
def test_a_malformed_line_of_libsvm_is_named(tmp_path, line):
    (tmp_path / "a.libsvm").write_text(SPARSE * 40 + line + "\n" + SPARSE * 40)
    with pytest.raises(InputError, match=r"line 241 cannot be read") as error:
        load_dataset(str(tmp_path / "a.libsvm"))
    assert line in str(error.value)


def image(size=(6, 5), mode="RGB", ending="png"):
    file = io.BytesIO()
    array = RNG.integers(0, 256, (size[1], size[0], *((3,) if mode == "RGB" else ())), np.uint8)
    Image.fromarray(array).save(file, ending)
    return file.getvalue(), array


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_folder_of_images_for_each_class(tmp_path, mode):
    kept = {}
    for part, count in (("train", 4), ("test", 2)):
        for label in ("cat", "dog"):
            (tmp_path / part / label).mkdir(parents=True)
            for number in range(count):
                content, kept[part, label, number] = image(mode=mode)
                (tmp_path / part / label / f"{number}.png").write_bytes(content)
    (tmp_path / "train" / "cat" / "notes.txt").write_text("no image")
    dataset = load_dataset(str(tmp_path))
    assert dataset.classes == ("cat", "dog")
    np.testing.assert_array_equal(dataset.y_train, [0] * 4 + [1] * 4)
    np.testing.assert_array_equal(dataset.x_train[5], kept["train", "dog", 1])
    np.testing.assert_array_equal(dataset.x_test[1], kept["test", "cat", 1])


def test_images_without_a_test_folder_and_of_unlike_sizes(tmp_path):
    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
        for number in range(5):
            (tmp_path / label / f"{number}.png").write_bytes(image()[0])
    assert len(load_dataset(str(tmp_path)).y_test) == 2
    (tmp_path / "dog" / "9.png").write_bytes(image((7, 5))[0])
    with pytest.raises(InputError, match=r"6×5 in 0.png and 7×5 in 9.png"):
        load_dataset(str(tmp_path))
    (tmp_path / "dog" / "9.png").write_bytes(b"none")
    with pytest.raises(InputError, match=r"9.png is not a readable image"):
        load_dataset(str(tmp_path))


def test_a_path_of_no_kind(tmp_path):
    (tmp_path / "a.xyz").write_text("hello")
    with pytest.raises(InputError, match=r"a file of unknown kind"):
        load_dataset(str(tmp_path / "a.xyz"))
    with pytest.raises(InputError, match=r"a folder of unknown kind"):
        load_dataset(str(tmp_path))
    with pytest.raises(InputError, match=r"no file"):
        load_dataset(str(tmp_path / "none" / "a.xyz"))


ROWS = [("ä b", i % 4, "xy"[i % 2]) for i in range(40)]


def table(separator, head=("text", "number", "label"), rows=ROWS):
    return "\n".join(separator.join(map(str, row)) for row in (head, *rows)) + "\n"


@pytest.mark.parametrize("separator", ["\t", ";", "|"])
def test_other_separators_are_found(tmp_path, separator):
    (tmp_path / "a.csv").write_text(table(","))
    (tmp_path / "b.csv").write_text(table(separator))
    comma, other = (load_dataset(str(tmp_path / name), target_column="label") for name in ("a.csv", "b.csv"))
    np.testing.assert_array_equal(other.x_train, comma.x_train)
    np.testing.assert_array_equal(other.y_test, comma.y_test)
    assert "separates the columns" in other.notes[0]


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "utf-8-sig"])
def test_other_encodings(tmp_path, encoding):
    (tmp_path / "a.csv").write_text(table(","))
    (tmp_path / "b.csv").write_bytes(table(",").encode(encoding))
    asked = {"encoding": encoding} if encoding == "cp1252" else {}
    other = load_dataset(str(tmp_path / "b.csv"), target_column="label", **asked)
    assert other.columns == load_dataset(str(tmp_path / "a.csv"), target_column="label").columns
    if asked:
        with pytest.raises(InputError, match=r"0xe4 on line 2 is not UTF-8; set --encoding"):
            load_dataset(str(tmp_path / "b.csv"), target_column="label")
        with pytest.raises(InputError, match=r"unknown encoding 'klingon'"):
            load_dataset(str(tmp_path / "b.csv"), target_column="label", encoding="klingon")


def test_comments_are_skipped_and_lines_keep_their_numbers(tmp_path):
    lines = table(",").splitlines()
    (tmp_path / "a.csv").write_text("\n".join(["# made by hand", lines[0], "# the rows", *lines[1:]]))
    dataset = load_dataset(str(tmp_path / "a.csv"), target_column="label", comment="#")
    assert len(dataset.y_train) + len(dataset.y_test) == 40
    (tmp_path / "a.csv").write_text("\n".join(["# made by hand", lines[0], "# the rows", *lines[1:], "a,b"]))
    with pytest.raises(InputError, match=r"line 44 has 2 values"):
        load_dataset(str(tmp_path / "a.csv"), target_column="label", comment="#")


def test_a_column_of_texts_is_learned_from(tmp_path):
    rows = [(f"{'good' if i % 2 else 'bad'} number {i}", i, "xy"[i % 2]) for i in range(200)]
    (tmp_path / "a.csv").write_text(table(",", rows=rows))
    with pytest.raises(InputError, match="--input_key=text to learn from texts"):
        load_dataset(str(tmp_path / "a.csv"), target_column="label")
    dataset = load_dataset(str(tmp_path / "a.csv"), target_column="label", input_key="text")
    assert dataset.tokens
    assert dataset.x_train.shape == (160, 3)
    assert [column.kind for column in dataset.columns] == ["text", "ignored"]


def test_texts_are_hashed_word_by_word():
    x, x_test, notes = tokenize(["A cat, a dog.", "dog"], ["zebra dog a cat a cat a cat"])
    assert x.shape == (2, 6)
    assert x[0, 0] == x[0, 3] != 0  # a
    assert x[0, 4] == x[1, 0] == x_test[0, 1]  # dog
    assert (x[1, 1:] == 0).all()
    assert x_test.shape == (1, 6)
    assert x_test.min() > 0
    assert x_test.max() < VOCABULARY
    assert "have 5 different words" in notes[0]


def archive(tmp_path, **arrays):
    np.savez(tmp_path / "a.npz", **arrays)
    return str(tmp_path / "a.npz")


def test_texts_in_an_archive(tmp_path):
    texts, labels = np.array(["good day", "bad day"] * 10), np.array(["+", "-"] * 10)
    dataset = load_dataset(archive(tmp_path, x_train=texts, y_train=labels, x_test=texts[:4], y_test=labels[:4]))
    assert dataset.tokens
    np.testing.assert_array_equal(dataset.x_train[:2], dataset.x_test[:2])


def loop_log_mel(sound, rate):
    """One sound, one window and one band after another."""
    size, hop = round(0.032 * rate), round(0.016 * rate)

    def mel(f):
        return 2595 * np.log10(1 + f / 700)

    edges = [mel(rate / 2) * i / 33 for i in range(34)]
    frames = []
    for start in range(0, len(sound) - size + 1, hop):
        window = [sound[start + t] * 0.5 * (1 - np.cos(2 * np.pi * t / size)) for t in range(size)]
        power = [abs(sum(w * np.exp(-2j * np.pi * k * t / size) for t, w in enumerate(window))) ** 2 / size
                 for k in range(size // 2 + 1)]  # fmt: skip
        bands = []
        for a, b, c in zip(edges, edges[1:], edges[2:], strict=False):
            total = 0.0
            for k, p in enumerate(power):
                m = mel(k * rate / size)
                total += p * max(0.0, min((m - a) / (b - a), (c - m) / (c - b)))
            bands.append(np.log(total + 1e-6))
        frames.append(bands)
    return frames


def test_log_mel_is_a_loop_over_windows_and_bands():
    sound = RNG.integers(-20000, 20000, (1, 150)).astype(np.int16)
    np.testing.assert_allclose(log_mel(sound, 2000)[0], loop_log_mel(sound[0] / 32768, 2000), rtol=1e-4, atol=1e-4)


def test_a_tone_is_loudest_in_its_band():
    rate, t = 8000, np.arange(8000) / 8000
    tones = np.sin(2 * np.pi * np.array([300, 1000, 3000])[:, None] * t).astype(np.float32)
    found = log_mel(tones, rate).mean(1).argmax(1)
    mel = 2595 * np.log10(1 + np.array([300, 1000, 3000]) / 700)
    expected = mel / (2595 * np.log10(1 + 4000 / 700)) * 33 - 1
    assert np.abs(found - expected).max() <= 1


def test_sounds_and_owners_in_an_archive(tmp_path):
    sounds, labels = RNG.integers(-99, 99, (20, 800)).astype(np.int16), np.arange(20) % 2
    arrays = {"x_train": sounds, "y_train": labels, "x_test": sounds, "y_test": labels}
    path = archive(tmp_path, **arrays, sample_rate=8000, owner=np.array(["ann", "bob"] * 10))
    dataset = load_dataset(path)
    assert dataset.x_train.shape == (20, 5, 32)
    assert dataset.owners == ("ann", "bob")
    np.testing.assert_array_equal(dataset.owner, np.arange(20) % 2)
    np.testing.assert_array_equal(load_dataset(archive(tmp_path, **arrays), sample_rate=8000).x_test, dataset.x_test)
    with pytest.raises(InputError, match="too short"):
        load_dataset(archive(tmp_path, **arrays), sample_rate=44100)
    with pytest.raises(InputError, match=r"owner must hold one number or name for each of the 20"):
        load_dataset(archive(tmp_path, **arrays, owner=np.arange(3)))


def test_sounds_of_wide_or_unsigned_integers_have_their_full_scale():
    sounds = RNG.integers(-20_000, 20_000, (3, 400)).astype(np.int16)
    np.testing.assert_array_equal(log_mel(sounds.astype(np.int64), 8000), log_mel(sounds, 8000))
    np.testing.assert_array_equal(log_mel(sounds.astype(np.int32) * 256, 8000), log_mel(sounds, 8000))
    quiet = (sounds // 256).astype(np.int8)
    np.testing.assert_array_equal(log_mel((quiet.astype(int) + 128).astype(np.uint8), 8000), log_mel(quiet, 8000))
    with pytest.raises(InputError, match="silent"):
        log_mel(np.zeros((3, 400), np.int16), 8000)


@pytest.mark.parametrize("name", ["a.libsvm.gz", "a.libsvm.bz2", "a.csv.gz"])
@pytest.mark.parametrize("harm", [lambda packed: packed[: len(packed) // 2], lambda packed: packed[:20] + b"x" * 40])
def test_a_damaged_archive_is_one_line(tmp_path, name, harm):
    pack = bz2.compress if name.endswith(".bz2") else gzip.compress
    (tmp_path / name).write_bytes(harm(pack(RNG.bytes(2000))))
    with pytest.raises(InputError, match="not a readable"):
        load_dataset(str(tmp_path / name), **({"target_column": "a"} if ".csv" in name else {}))


def test_numbers_that_mean_nothing_in_an_archive_are_refused(tmp_path):
    sounds, digits = RNG.normal(size=(6, 400)).astype(np.float32), np.arange(6) % 2
    both = {"x_train": sounds, "y_train": digits, "x_test": sounds, "y_test": digits}
    for rate in (np.nan, np.inf, -1):
        with pytest.raises(InputError, match="sample_rate must be one number"):
            load_dataset(archive(tmp_path, **both, sample_rate=rate))
    with pytest.raises(InputError, match=r"x_train must have shape"):
        load_dataset(archive(tmp_path, **both | {"x_train": np.array(3.0)}))
    with pytest.raises(InputError, match=r"owner has values that are not finite"):
        load_dataset(archive(tmp_path, **both, owner=np.array([0, 1, np.nan, 0, 1, 0])))


def test_long_whole_numbers_stay_apart(tmp_path):
    labels = np.array(["12345678901234567", "12345678901234568"])[np.arange(30) % 2]
    x = np.ones((30, 2), np.float32)
    np.savez(tmp_path / "a.npz", x_train=x, y_train=labels, x_test=x, y_test=labels)
    assert load_dataset(str(tmp_path / "a.npz")).classes == ("12345678901234567", "12345678901234568")
    labels = np.char.add(labels, "000000")
    np.savez(tmp_path / "a.npz", x_train=x, y_train=labels, x_test=x, y_test=labels)
    assert len(load_dataset(str(tmp_path / "a.npz")).classes) == 2


def test_whole_numbers_that_are_predicted_as_numbers_are_noted(tmp_path):
    (tmp_path / "a.libsvm").write_text("".join(f"{i % 26 + 1} 1:{i}\n" for i in range(260)))
    dataset = load_dataset(str(tmp_path / "a.libsvm"))
    assert dataset.outputs == 1
    assert any("26 different whole numbers" in note for note in dataset.notes)


def test_a_training_folder_alone_and_images_of_16_bits(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "train" / name).mkdir(parents=True)
        for number in range(10):
            (tmp_path / "train" / name / f"{number}.png").write_bytes(image()[0])
    (tmp_path / "extra").mkdir()
    dataset = load_dataset(str(tmp_path))
    assert dataset.classes == ("cat", "dog")
    assert dataset.notes[0] == "images in extra are not read"
    Image.fromarray(np.full((5, 6), 40_000, np.uint16)).save(tmp_path / "train" / "cat" / "0.png")
    with pytest.raises(InputError, match=r"0\.png has more than 8 bits"):
        load_dataset(str(tmp_path))
