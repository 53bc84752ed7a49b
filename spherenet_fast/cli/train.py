"""spherenet-fast train."""

from pathlib import Path
from typing import Annotated

import typer

from ._common import KEYS, errors_in_one_line


def train(
    config: Annotated[
        str, typer.Argument(help="Your data, a YAML file, or a shipped config: ethanol, qm9, slabs, paper_qm9:U0, ...")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder for the results.", show_default="runs/<config's name>")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override, as training.max_time=20.")
    ] = None,
    keys: Annotated[list[str] | None, KEYS] = None,
    seeds: Annotated[
        int | None,
        typer.Option(
            min=1, max=1000, help="Train so many models, in seed0, seed1, ... of the folder.", show_default="one"
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in the folder; its own config.yaml will do as CONFIG.")
    ] = False,
):
    """Train a model; Ctrl-C saves (so do SIGTERM and SIGUSR1), and --resume continues to the same result.

    Data alone is trained on with settings that suit it, which `spherenet-fast init` writes to a file.
    """
    from ..data.labels import parse_keys
    from ..training import load_config
    from ..training.callbacks.signals import Interrupted
    from ..training.config.files import is_data, run_name
    from ..training.config.own_data import config_of_data
    from ..training.distributed.start import processes_of
    from ..training.run import train_to_the_end
    from ..training.seeds import train_seeds

    with errors_in_one_line():
        named = [f"data.keys.{name}={label}" for name, label in (parse_keys(keys) or {}).items()]
        changes = [*(set_ or []), *named]
        read = None
        if is_data(config):
            settings, text, read = config_of_data(config, changes)
        else:
            settings, text = load_config(config, changes), None
        of_run = Path(config).parent  # a run is resumed by its own config, too
        if resume and out is None and Path(config).name == "config.yaml" and (of_run / "split.npz").is_file():
            out = of_run
        out = out or Path("runs") / run_name(config)
        with processes_of(settings.training).one_voice():
            if text is not None:
                print(text, flush=True)
            try:
                if seeds is None:
                    results = train_to_the_end(settings, out, resume, read)
                else:
                    results = train_seeds(settings, seeds, out, resume, read)
            except Interrupted as stop:
                raise typer.Exit(128 + stop.signum) from stop
            print(f"results in {out}")
            for note in dict.fromkeys(one["note"] for one in results.get("seeds", [results])):
                if note:
                    print(f"warning: {note}")
