"""Inputs of an experiment: its data set, its reference data, and its groups of devices."""

from pathlib import Path
from typing import NamedTuple

from ddjax import data
from ddjax.errors import InputError
from ddjax.experiments.fields import fields
from ddjax.experiments.settings import Settings
from ddjax.experiments.usage import datasets
from ddjax.learning import CLASSIFICATION, DIVERGENCES, infer_task
from ddjax.models import parse_models
from ddjax.networks import Topology
from ddjax.types import Problem


class DeviceGroup(NamedTuple):
    """Devices that have the same model and see the same features.

    Attributes:
      model: name in `MODELS`.
      size: number of devices.
      view: index of the part of the features that the devices see, and the number of parts.
    """

    model: str
    size: int
    view: tuple[int, int] = (0, 1)

    @property
    def label(self) -> str:
        """Name of the group in tables and messages."""
        return self.model if self.view[1] == 1 else f"{self.model} (view {self.view[0] + 1})"


def device_groups(settings: Settings) -> list[DeviceGroup]:
    """Return the groups of devices in order; the devices of each model are divided among the feature views.

    Raises:
      InputError: a model is unknown, the counts are wrong, or a model has fewer devices than there are views.
    """
    views, groups = settings.feature_views, []
    for model, size in parse_models(settings.models, settings.devices):
        if size < views:
            raise InputError(
                f"--feature_views={views} needs at least {views} devices per model, but {model} has {size}"
            )
        groups += [DeviceGroup(model, size // views + (view < size % views), (view, views)) for view in range(views)]
    return groups


def load(settings: Settings) -> data.Dataset:
    """Load the data set of the devices; raise `InputError` if it cannot be read."""
    private = settings.devices * (settings.examples_per_device or 100)
    wanted = private + settings.reference_size if settings.reference_size else private * 4 // 3 + 1
    wanted += settings.validation_examples
    own = {name: getattr(settings, name) for name in data.Wanted._fields if name in fields(Settings)}
    return data.load_dataset(
        settings.dataset, **own | {"train": wanted, "owner_key": data.owner_key(settings.partition)}
    )


def load_reference(settings: Settings) -> data.Dataset | None:
    """Load the data set from which the reference set is drawn; `None` if this is noise or the devices' data set."""
    if settings.reference_dataset not in datasets(settings)[1:]:
        return None
    names = data.find_dataset(settings.reference_dataset).names
    own = {name: getattr(settings, name) for name in names if name in fields(Settings)}
    own |= {"devices": settings.devices, "seed": settings.seed, "train": settings.reference_size or 2000}
    own |= {"owner_key": data.owner_key(settings.partition), "unlabeled": True}
    return data.load_dataset(settings.reference_dataset, **own)


def digest(dataset: data.Dataset, reference: data.Dataset | None, topology: Topology) -> str:
    """Return a digest of the data and of the graph."""
    arrays = [part for matrix in topology.matrices for part in (matrix.indptr, matrix.indices, matrix.data)]
    return f"data {data.digest(dataset, reference)}, graph {data.digest_arrays(arrays)}"


def file_digests(settings: Settings) -> dict[str, str]:
    """Return path → digest, for each file that holds data or a graph."""
    graphs = settings.topology.removeprefix("alternating:").split("+")
    paths: list[str | Path] = [graph.removeprefix("edges:") for graph in graphs if graph.startswith("edges:")]
    for spec in datasets(settings):
        if (entry := data.find_dataset(spec)).form:
            paths += [spec, *filter(None, [entry.beside(Path(spec).expanduser())])]
    return {str(path): data.digest_path(path) for path in paths}


def check_task(settings: Settings, problem: Problem) -> None:
    """Raise `InputError` if the task is regression but a setting for classification only is not at its default."""
    if infer_task(problem.y) is CLASSIFICATION:
        DIVERGENCES.parse(settings.divergence)
        return
    for name in ("divergence", "temperature", "prior_adjustment", "target_accuracy"):
        value = getattr(settings, name)
        if value != fields(Settings)[name].default:
            raise InputError(
                f"--{name}={value} is only for classification, but {settings.dataset} is a regression task; leave this "
                "flag out"
            )
