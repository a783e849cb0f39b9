"""What an experiment is fed: its data set, its reference data, and the groups of devices that see them."""

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
    """Devices of one model that see the same features.

    Attributes:
      model: a name of `MODELS`.
      size: number of devices.
      view: the number of the part of the features that they see, and how many parts there are.
    """

    model: str
    size: int
    view: tuple[int, int] = (0, 1)

    @property
    def label(self) -> str:
        return self.model if self.view[1] == 1 else f"{self.model} (view {self.view[0] + 1})"


def device_groups(settings: Settings) -> list[DeviceGroup]:
    """The groups of devices in order; those of one model are shared out over the feature views.

    Raises:
      InputError: unknown models, bad counts, or fewer devices of a model than views.
    """
    views, groups = settings.feature_views, []
    for model, size in parse_models(settings.models, settings.devices):
        if size < views:
            raise InputError(f"--feature_views={views} needs {views} devices of each model, but {size} are {model}")
        groups += [DeviceGroup(model, size // views + (view < size % views), (view, views)) for view in range(views)]
    return groups


def load(settings: Settings) -> data.Dataset:
    private = settings.devices * (settings.examples_per_device or 100)
    wanted = private + settings.reference_size if settings.reference_size else private * 4 // 3 + 1
    wanted += settings.validation_examples
    own = {name: getattr(settings, name) for name in data.Wanted._fields if name in fields(Settings)}
    return data.load_dataset(
        settings.dataset, **own | {"train": wanted, "owner_key": data.owner_key(settings.partition)}
    )


def load_reference(settings: Settings) -> data.Dataset | None:
    """The data set that the reference set is drawn from, if it is another."""
    if settings.reference_dataset not in datasets(settings)[1:]:
        return None
    names = data.find_dataset(settings.reference_dataset).names
    own = {name: getattr(settings, name) for name in names if name in fields(Settings)}
    own |= {"devices": settings.devices, "seed": settings.seed, "train": settings.reference_size or 2000}
    own |= {"owner_key": data.owner_key(settings.partition), "unlabeled": True}
    return data.load_dataset(settings.reference_dataset, **own)


def digest(dataset: data.Dataset, reference: data.Dataset | None, topology: Topology) -> str:
    arrays = [part for matrix in topology.matrices for part in (matrix.indptr, matrix.indices, matrix.data)]
    return f"data {data.digest(dataset, reference)}, graph {data.digest_arrays(arrays)}"


def file_digests(settings: Settings) -> dict[str, str]:
    """The digests of the files that the data and the graph are read from, by path."""
    graphs = settings.topology.removeprefix("alternating:").split("+")
    paths: list[str | Path] = [graph.removeprefix("edges:") for graph in graphs if graph.startswith("edges:")]
    for spec in datasets(settings):
        if (entry := data.find_dataset(spec)).form:
            paths += [spec, *filter(None, [entry.beside(Path(spec).expanduser())])]
    return {str(path): data.digest_path(path) for path in paths}


def check_task(settings: Settings, problem: Problem) -> None:
    """Raise `InputError` for settings that are only for classes if the data have numbers to predict."""
    if infer_task(problem.y) is CLASSIFICATION:
        DIVERGENCES.parse(settings.divergence)
        return
    for name in ("divergence", "temperature", "prior_adjustment", "target_accuracy"):
        value = getattr(settings, name)
        if value != fields(Settings)[name].default:
            raise InputError(
                f"--{name}={value} is only for classes, but {settings.dataset} has numbers to predict; leave it out"
            )
