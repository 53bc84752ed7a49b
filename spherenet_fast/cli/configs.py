"""spherenet-fast init and options: a config for data of one's own, and what a config may have."""

from pathlib import Path
from typing import Annotated

import typer

from ._common import KEYS, Overwrite, errors_in_one_line


def init(
    data: Annotated[str, typer.Argument(help="Structures with labels: a file or folder, or pyg:MD17/<molecule>.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="YAML file to write.", show_default="<data's name>.yaml")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A value to write, as model.name=SchNet.")
    ] = None,
    keys: Annotated[list[str] | None, KEYS] = None,
    overwrite: Overwrite = False,
):
    """Write a config for data of your own, every option explained; labels, units and split are those of the data."""
    from .._files import check_output, write_file
    from ..data.labels import parse_keys
    from ..training.config.files import YAML, is_data, run_name
    from ..training.config.own_data import config_of_data
    from ..training.config.template import commented

    with errors_in_one_line():
        if not is_data(data):
            raise ValueError(f"DATA: expected a file or folder of structures with labels, got {data!r}")
        out = out or Path(f"{run_name(data)}.yaml")
        if out.suffix.lower() not in YAML:
            raise ValueError(f"--out: expected a name that ends in {' or '.join(YAML)}, got {out.name!r}")
        check_output(out, overwrite)
        named = [f"data.keys.{name}={label}" for name, label in (parse_keys(keys) or {}).items()]
        config, text, _ = config_of_data(data, [*(set_ or []), *named])
        write_file(out, commented(config, f"{text}\n\n  spherenet-fast train {out}").encode())
        print(f"{text}\nconfig in {out}")


def options(
    name: Annotated[
        str, typer.Argument(help="Those alone that begin so: training, data.keys, model:SchNet.", show_default="all")
    ] = "",
):
    """Print every option of a config, with its default and what it means."""
    from ..training.config.reference import plain_text

    with errors_in_one_line():
        print(plain_text(name))
