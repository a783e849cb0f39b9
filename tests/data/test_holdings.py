"""Private examples of each device, its view of them, and the source of the reference set."""

import re

import numpy as np
import pytest

import ddjax
from ddjax.data import Dataset, prepare
from ddjax.data.partition import natural
from ddjax.errors import InputError
from ddjax.experiments import Settings, build

RNG = np.random.default_rng(0)


def parts(owner, devices, **choices):
    return natural(np.asarray(owner), devices, np.random.default_rng(1), named=True, **choices)


def test_as_many_owners_as_devices():
    owner = RNG.integers(0, 4, 100)
    for n, part in enumerate(parts(owner, 4)):
        assert sorted(part) == np.flatnonzero(owner == n).tolist()


def test_more_owners_than_devices_are_joined_in_order():
    owner = np.repeat(np.arange(10), [5, 5, 5, 5, 20, 1, 1, 1, 1, 16])
    found = parts(owner, 3)
    assert sorted(np.concatenate(found)) == list(range(60))
    owners = [sorted(set(owner[part])) for part in found]
    assert owners == [[0, 1, 2, 3], [4], [5, 6, 7, 8, 9]]


@pytest.mark.parametrize("devices", [1, 2, 7, 19, 20])
def test_joined_owners_stay_whole_and_no_device_is_empty(devices):
    owner = np.repeat(np.arange(20), RNG.integers(1, 50, 20))
    found = parts(owner, devices)
    assert min(map(len, found)) > 0
    holders = [{n for n, part in enumerate(found) if each in owner[part]} for each in range(20)]
    assert all(len(holder) == 1 for holder in holders)


def test_fewer_owners_than_devices_are_spread_by_their_size():
    owner = np.repeat([0, 1, 2], [100, 40, 10])
    found = parts(owner, 15)
    assert sorted(np.concatenate(found)) == list(range(150))
    assert all(len(set(owner[part])) == 1 for part in found)
    held = [sum(owner[part[0]] == each for part in found) for each in range(3)]
    assert sum(held) == 15
    assert held[0] > held[1] > held[2] >= 1


def test_a_part_of_joined_owners_is_of_all_of_them():
    """Chance that one of five owners is missing among 50 of 500 examples: below 1e-4 per device."""
    owner = np.repeat(np.arange(20), 100)
    for n, part in enumerate(parts(owner, 4, most=50)):
        assert len(set(part)) == len(part) == 50
        assert set(owner[part]) == set(range(5 * n, 5 * n + 5))


def small(classes=3, examples=90, shape=(4, 6)):
    x = np.random.default_rng(examples).normal(size=(examples, *shape)).astype(np.float32)
    y = (np.arange(examples) % classes).astype(np.int32)
    return Dataset(x, y, x[:20] + 1, y[:20], classes, owner=np.arange(examples) % 5, owners=tuple("abcde"), scaled=True)


def made(dataset=None, devices=5, **choices):
    choices = {"reference_size": 20, "partition": "iid"} | choices
    return prepare(dataset or small(), np.ones((devices, devices)) / devices, **choices)


def test_natural_follows_the_owners():
    dataset = small()
    problem = made(dataset, partition="natural").problem
    for n in range(5):
        held = np.asarray(problem.x)[problem.private_indices[n, : problem.private_counts[n]]]
        rows = [int(np.flatnonzero((dataset.x_train == x).all((1, 2)))[0]) for x in held]
        assert {dataset.owner[row] for row in rows} == {n}


def test_nobody_knows_the_owners():
    with pytest.raises(InputError, match=r"needs the owners of examples"):
        made(small()._replace(owner=None, owners=()), partition="natural")


def test_contrast_is_a_factor_of_each_device():
    plain, shifted = (np.asarray(made(feature_shift=spec).problem.x) for spec in ("", "contrast:4"))
    problem = made().problem
    for n in range(5):
        held = problem.private_indices[n, : problem.private_counts[n]]
        np.testing.assert_allclose(shifted[held], plain[held] * 4 ** (n / 2 - 1), rtol=1e-5)


def test_rotation_turns_images():
    """Half a turn reverses rows and columns; the device in the middle sees them upright."""
    problem, turned = (made(devices=3, feature_shift=spec).problem for spec in ("", "rotation:180"))
    for n, back in ((0, True), (1, False), (2, True)):
        held = problem.private_indices[n, : problem.private_counts[n]]
        expected = np.asarray(problem.x)[held]
        np.testing.assert_allclose(turned.x[held], expected[:, ::-1, ::-1] if back else expected, atol=1e-4)
    with pytest.raises(InputError, match="needs images"):
        made(small(shape=(4,)), feature_shift="rotation:10")


def test_noise_grows_over_devices():
    plain, noisy = (
        made(small(examples=3000), feature_shift=spec, reference_size=500).problem for spec in ("", "noise:2")
    )
    difference = np.asarray(noisy.x) - np.asarray(plain.x)
    for n in range(5):
        held = plain.private_indices[n, : plain.private_counts[n]]
        assert difference[held].std() == pytest.approx(n / 2, rel=0.03)
    of_reference = np.asarray(noisy.reference) - np.asarray(plain.reference)
    assert of_reference.std() == pytest.approx(np.sqrt(np.mean(np.arange(5.0) ** 2) / 4), rel=0.1)


def test_the_reference_set_can_be_another_data_set():
    other = small(examples=30)
    problem = made(reference_dataset=other, reference_source="other.npz").problem
    known = {x.tobytes() for x in other.x_train}
    assert all(np.asarray(x).tobytes() in known for x in problem.reference)
    assert len(problem.x) == 90  # nothing is held out
    with pytest.raises(InputError, match=re.escape("[4, 5] numbers, but the devices' inputs are [4, 6]")):
        made(reference_dataset=small(shape=(4, 5)), reference_source="other.npz")
    with pytest.raises(InputError, match=r"reference_size must be between 1 and 30"):
        made(reference_dataset=other, reference_source="other.npz", reference_size=31)


@pytest.mark.parametrize("length", [3, 7, 24])
def test_reference_texts_of_another_data_set_are_as_long_as_the_training_texts(length):
    texts = [Dataset(small(shape=(n,)).x_train, y, None, y, 3) for n, y in ((7, small().y_train), (length, None))]
    here, there = (
        each._replace(x_train=np.random.default_rng(n).integers(1, 99, each.x_train.shape), tokens=True, scaled=False)
        for n, each in enumerate(texts)
    )
    here = here._replace(x_test=here.x_train[:20], y_test=here.y_train[:20])
    reference = np.asarray(made(here, reference_dataset=there, reference_source="other.npz").problem.reference)
    expected = np.zeros((90, 7), int)
    expected[:, : min(length, 7)] = there.x_train[:, :7]
    assert reference.shape == (20, 7)
    assert {tuple(row) for row in reference} <= {tuple(row) for row in expected}


def test_the_reference_set_can_be_noise():
    dataset = small(examples=600)
    dataset = dataset._replace(x_train=3 * dataset.x_train + 5)
    prepared = made(dataset, reference_source="noise", reference_size=400, standardize="none")
    noise = np.asarray(prepared.problem.reference)
    assert noise.mean() == pytest.approx(dataset.x_train.mean(), abs=0.2)
    assert noise.std() == pytest.approx(dataset.x_train.std(), rel=0.05)
    assert prepared.facts["reference"] == {
        "source": "noise", "known": 400, "labels": False,
        "bytes_per_device": 400 * 24 * 4, "bytes_to_distribute": 5 * 400 * 24 * 4,
    }  # fmt: skip


def test_noise_is_like_each_column_of_a_table():
    x = np.random.default_rng(0).normal(size=(2000, 3)) * (1, 1000, 0.1) + (0, 5e4, -7)
    dataset = Dataset(x, np.arange(2000) % 2, x[:20], np.arange(20) % 2, 2)
    noise = np.asarray(
        made(dataset, reference_source="noise", reference_size=1000, standardize="columns").problem.reference
    )
    np.testing.assert_allclose(noise.mean(0), 0, atol=0.2)
    np.testing.assert_allclose(noise.std(0), 1, rtol=0.1)


def test_other_reference_data_are_looked_at():
    dataset = small()
    for choices in ({"reference_classes": ("1",)}, {"reference_alpha": 1.0}):
        with pytest.raises(InputError, match="choose from the training data"):
            made(dataset, reference_source="noise", **choices)
    notes = made(dataset, reference_dataset=small(), reference_source="it.npz", reference_size=90).facts["notes"]
    assert "the reference set contains the inputs of 90 of the 90 private examples" in notes
    tests = dataset._replace(x_train=dataset.x_test, y_train=dataset.y_test)
    notes = made(dataset, reference_dataset=tests, reference_source="it.npz").facts["notes"]
    assert notes == ["the reference set contains the inputs of 20 of the 20 test examples"]
    held_out = {"validation_examples": 15, "evaluate_on": "validation", "reference_size": 90}
    notes = made(dataset, reference_dataset=small(), reference_source="it.npz", **held_out).facts["notes"]
    assert "the reference set contains the inputs of 15 of the 15 validation examples" in notes
    pixels, wide = (
        dataset._replace(x_train=np.full((90, 4, 6), 9, kind), x_test=np.full((20, 4, 6), 9, kind), scaled=False)
        for kind in (np.uint8, np.uint16)
    )
    made(pixels, reference_dataset=wide, reference_source="it.npz")
    wide.x_train[3, 0, 0] = 300
    with pytest.raises(InputError, match="range from 9 to 300, which does not fit the dtype uint8"):
        made(pixels, reference_dataset=wide, reference_source="it.npz")


@pytest.mark.parametrize(
    ("head", "cities", "said"),
    [
        ("age,city", "xy", ""),
        ("age,city,label", "xy", ""),
        ("age,city,owner", "xy", ""),
        ("city,age", "xy", "columns are in a different order"),
        ("age,town", "xy", "column 'city' differs"),
        ("age,city", "xyz", "column 'city' differs"),
    ],
)
def test_a_table_of_reference_data_has_the_columns_that_devices_have(tmp_path, head, cities, said):
    """Targets and owners may be missing; categories must be the same, or inputs would mean something else."""
    here, there = tmp_path / "here.csv", tmp_path / "there.csv"
    here.write_text("owner,age,city,label\n" + "".join(f"{i % 4},{i},{'xy'[i % 2]},{i % 3}\n" for i in range(90)))
    with there.open("w") as file:
        print(head, file=file)
        for i in range(40):
            city = cities[i % len(cities)]
            values = {"age": i, "city": city, "town": city, "label": "", "owner": 9}
            print(*(values[name] for name in head.split(",")), sep=",", file=file)
    settings = Settings(
        dataset=str(here), target_column="label", partition="natural:owner", devices=4, models="linear",
        reference_dataset=str(there), reference_size=40,
    )  # fmt: skip
    if said:
        with pytest.raises(InputError, match=said):
            build(settings)
    else:
        assert build(settings).problem.reference.shape == (40, 3)


def labels_of(dataset, problem):
    places = {x.tobytes(): y for x, y in zip(dataset.x_train, dataset.y_train, strict=True)}
    return np.array([places[np.asarray(x).tobytes()] for x in problem.reference])


def test_classes_can_be_missing_from_the_reference_set():
    dataset = small()
    problem = made(dataset, reference_classes=("0", "2")).problem
    np.testing.assert_array_equal(np.bincount(labels_of(dataset, problem), minlength=3), [10, 0, 10])
    assert len(problem.x) == 70
    with pytest.raises(InputError, match="unknown class of the reference set '7'"):
        made(dataset, reference_classes=("7",))
    with pytest.raises(InputError, match=r"needs 40 of class '1', but there are 30"):
        made(dataset, reference_classes=("1",), reference_size=40)


def test_devices_can_know_different_parts_of_the_reference_set():
    prepared = made(reference_known=0.3)
    known = np.asarray(prepared.problem.known)
    assert known.shape == (5, 20)
    np.testing.assert_array_equal(known.sum(1), 6)
    assert prepared.facts["reference"]["bytes_per_device"] == 6 * 24 * 4
    assert f"{(~known.any(0)).sum()} of the 20 reference examples are unknown to all devices" in prepared.facts["notes"]
    assert made().problem.known is None
    for share, said in ((0.01, "of 20 reference examples is less than one"), (0, "must lie in"), (1.1, "must lie in")):
        with pytest.raises(InputError, match=said):
            made(reference_known=share)


def test_classes_can_be_uneven_in_the_reference_set():
    dataset = small(examples=6000)
    even, uneven = (
        np.bincount(labels_of(dataset, made(dataset, reference_alpha=alpha, reference_size=300).problem), minlength=3)
        for alpha in (1e4, 0.3)
    )
    np.testing.assert_allclose(even, 100, atol=6)
    assert uneven.sum() == 300
    assert np.ptp(uneven) > 60


def test_private_and_reference_examples_are_disjoint_however_it_is_drawn():
    dataset = small()
    for choices in ({}, {"reference_classes": ("1",)}, {"reference_alpha": 1.0}):
        problem = ddjax.make_problem(dataset, np.ones((5, 5)) / 5, reference_size=20, partition="iid", **choices)
        private, reference = ({np.asarray(x).tobytes() for x in each} for each in (problem.x, problem.reference))
        assert len(private) == 70
        assert len(reference) == 20
        assert not private & reference
