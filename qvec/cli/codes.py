"""Codes on the command line: a name, or a name with options, as ``prequantized:dtype=ubinary``."""

from __future__ import annotations

from dataclasses import fields, replace

from qvec.bench.contestants import parse
from qvec.codes.configs import CodeConfig
from qvec.codes.registry import make_config
from qvec.common.errors import InputError

FLAGS = {"true": True, "false": False}


def as_code(text: str) -> CodeConfig:
    """The configuration that NAME or NAME:OPTION=VALUE,... stands for. Raises InputError naming what is wrong."""
    try:
        name, given = parse(text)
    except InputError:
        raise InputError(f"{text!r} is not of the form NAME:OPTION=VALUE,OPTION=VALUE") from None
    config = make_config(name)
    known = {field.name for field in fields(config)}
    if unknown := sorted(given.keys() - known):
        listed = ", ".join(sorted(known)) or "none"
        raise InputError(f"{name} has no option {unknown[0]!r}; its options are: {listed}")
    return replace(config, **{key: FLAGS.get(str(value), value) for key, value in given.items()})
