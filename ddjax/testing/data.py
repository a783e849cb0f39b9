"""Checks of a data set."""

import numpy as np

from ddjax.data import Dataset, load_dataset, make_problem
from ddjax.learning import infer_task
from ddjax.networks import build_topology


def check_dataset(spec: str, *, target_column: str = "") -> None:
    """Check a registered data set.

    There must be as many inputs as targets. Training and test examples must agree in shape and dtype. All values must
    be finite, and must be the same for the same seed. Labels must lie between 0 and K − 1. A partition over two devices
    must be possible.

    Args:
      spec: specification of the data set, such as `digits` or the path of a file.
      target_column: column to predict, for a `.csv` file.

    Raises:
      AssertionError: a check fails; the message says what is wrong.
      InputError: the data set is unknown.

    Examples:
      >>> check_dataset("digits")
    """
    dataset, again = (load_dataset(spec, devices=2, train=100, seed=5, target_column=target_column) for _ in range(2))
    for name, first, second in zip(Dataset._fields, dataset, again, strict=True):
        np.testing.assert_array_equal(first, second, f"{name} differs although the seed is the same")
    for split, x, y in (
        ("train", dataset.x_train, dataset.y_train),
        ("test", dataset.x_test, dataset.y_test),
    ):
        assert len(x) == len(y) > 0, f"{split}: {len(x)} inputs and {len(y)} targets"
        for name, values in (("x", x), ("y", y)):
            sound = values.dtype.kind in "iu" or np.isfinite(values).all()
            assert sound, f"{name}_{split} has values that are not finite"
    for one, other in ((dataset.x_train, dataset.x_test), (dataset.y_train, dataset.y_test)):
        assert one.shape[1:] == other.shape[1:], f"training and test shapes differ: {one.shape[1:]}, {other.shape[1:]}"
        assert one.dtype == other.dtype, f"training and test dtypes differ: {one.dtype}, {other.dtype}"
    if dataset.y_train.dtype.kind in "iu":
        labels = np.concatenate([dataset.y_train, dataset.y_test])
        least, most = labels.min(), labels.max()
        assert 0 <= least <= most < dataset.outputs, (
            f"labels go from {least} to {most}, but there are {dataset.outputs} outputs"
        )
    if dataset.owner is not None:
        assert len(dataset.owner) == len(dataset.x_train), "owner does not have an entry for each training example"
    problem = make_problem(dataset, build_topology("complete", 2).network, reference_size=10)
    assert infer_task(problem.y).metric in ("accuracy", "mse")
