"""Formats of data, one module each.

To `read_molecules` a format is a module, named in `sources.FORMATS`, with two functions:

    holds(source: str) -> bool                                     whether a path (it exists), or a name, is of it
    read_source(source: str, options: ReadOptions) -> Molecules    all structures there, with every label

One that can read single structures, so that data may be larger than memory, is named in `sources.STREAMED`, with

    records(source: str, options: ReadOptions) -> Records | None   see `streams.records`; None: not of it
"""
