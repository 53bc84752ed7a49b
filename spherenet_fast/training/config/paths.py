"""Where a run's data and first checkpoint lie, whatever folder its commands are given in and wherever they moved."""

from dataclasses import replace
from pathlib import Path

from ...data.sources import source_path
from ...pretrained import is_name
from .sections import Config


def absolute_paths(config: Config) -> Config:
    """The config with absolute paths of its data, so that it means the same in any folder."""
    return _with_places(config, lambda path: str(Path(path).expanduser().absolute()))


def moved_paths(config: Config, run) -> Config:
    """The config with the paths of data that is not where it was but moved together with the folder `run` of a run."""
    return _with_places(config, lambda path: _moved(path, Path(run).absolute()))


def _with_places(config: Config, function) -> Config:
    places = {name: getattr(config.data, name) for name in ("source", "root", "split", "index")}
    known = {name: place for name, place in places.items() if place is not None and source_path(place) is not None}
    start = config.training.init_from
    return replace(
        config,
        data=replace(config.data, **{name: function(place) for name, place in known.items()}),
        training=replace(config.training, init_from=start if start is None or is_name(start) else function(start)),
    )


def _moved(path: str, run: Path) -> str:
    """`path` if it is there, else what has as many of its last names in the folder `run` or in three above it."""
    if Path(path).expanduser().exists():
        return path
    parts = Path(path).parts[1:] if Path(path).is_absolute() else Path(path).parts
    folders = [run, *run.parents][:4]
    for first in range(len(parts)):
        for folder in folders:
            if (found := folder.joinpath(*parts[first:])).exists() and found not in folders:
                print(f"{path} is not there; {found} is taken")
                return str(found)
    return path
