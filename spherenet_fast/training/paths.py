"""Where the data of a run lies, whatever folder its commands are given in and wherever both were moved."""

from dataclasses import replace
from pathlib import Path

from ..data.sources import source_path
from .config import Config


def absolute_paths(config: Config) -> Config:
    """The config with absolute paths of its data, so that it means the same in any folder."""
    data = config.data
    places = {name: getattr(data, name) for name in ("root", "split")}
    places["source"] = data.source if source_path(data.source) is not None else None
    absolute = {name: str(Path(place).expanduser().absolute()) for name, place in places.items() if place is not None}
    return replace(config, data=replace(data, **absolute))


def find_moved(path: str, run: Path | None) -> str:
    """`path` if it is there, else what has as many of its last names in the folder `run` of a run or in three above."""
    if run is None or source_path(path) is None or Path(path).exists():
        return path
    parts = Path(path).parts[1:] if Path(path).is_absolute() else Path(path).parts
    folders = [run.absolute(), *run.absolute().parents][:4]
    for first in range(len(parts)):
        for folder in folders:
            if (found := folder.joinpath(*parts[first:])).exists() and found not in folders:
                print(f"{path} is not there; {found} is taken")
                return str(found)
    return path
