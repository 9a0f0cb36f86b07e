"""The command line: `key=value` over the presets of `conf/`, made into a typed configuration or a clear error."""

from __future__ import annotations

import difflib
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cluster.config import Config, PredictConfig
from cluster.config.check import check
from cluster.tracking import redact

CONF = Path(__file__).resolve().parent.parent / "conf"

T = TypeVar("T")


def load(arguments: Sequence[str]) -> Config:
    """Compose `conf/config.yaml` with `arguments` (`key=value`, `experiment=NAME`) and check the result.

    Raises:
        ValueError: for a wrong key, type, value or preset, naming what there is instead.
    """
    ConfigStore.instance().store(name="config_schema", node=Config)
    overrides = [part for argument in arguments for part in _meant(argument)]
    _check_groups(overrides)
    config = cast(Config, _typed(Config, overrides, lambda: _compose(overrides)))
    check(config)
    return config


def load_predict(arguments: Sequence[str]) -> PredictConfig:
    """`key=value` arguments of the predict command, see `load_keys`."""
    return load_keys(PredictConfig, arguments)


def load_keys(schema: type[T], arguments: Sequence[str]) -> T:
    """`key=value` arguments of a command that has a configuration of its own and no presets.

    Raises:
        ValueError: for a wrong or missing key or a wrong type.
    """
    return cast(T, _typed(schema, arguments, lambda: _dotlist(schema, arguments)))


def run(load_config: Callable[[Sequence[str]], Any], work: Callable[[Any], Any]) -> None:
    """Entry point of every job: exit status 2 and one message for a wrong configuration, 1 for what users can mend."""
    redact.install()
    logging.basicConfig(level=os.environ.get("FSS_LOG", "INFO"), format="%(levelname)s %(name)s: %(message)s")
    try:
        config = load_config(sys.argv[1:])
    except ValueError as error:
        sys.exit(_say(error, 2))
    try:
        work(config)
    except (ValueError, FileNotFoundError, PermissionError) as error:
        logging.getLogger("jobs").debug("details", exc_info=True)
        sys.exit(_say(error, 1))


def _say(error: Exception, status: int) -> int:
    print(redact.redact(f"error: {error}"), file=sys.stderr, flush=True)
    return status


def _compose(overrides: Sequence[str]) -> Any:
    GlobalHydra.instance().clear()
    with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
        return compose(config_name="config", overrides=list(overrides))


def _dotlist(schema: type, arguments: Sequence[str]) -> Any:
    wrong = [argument for argument in arguments if "=" not in argument]
    if wrong:
        raise ValueError(f"expected key=value arguments, got {wrong[0]!r}")
    return OmegaConf.merge(OmegaConf.structured(schema), OmegaConf.from_dotlist(list(arguments)))


def _typed(schema: type, arguments: Sequence[str], make: Callable[[], Any]) -> Any:
    try:
        config = make()
        missing = OmegaConf.missing_keys(config)
        if missing:
            raise ValueError(f"expected a value for {', '.join(sorted(missing))}: give it as key=value")
        return OmegaConf.to_object(config)
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(_explain(schema, arguments, error)) from error


def _explain(schema: type, arguments: Sequence[str], error: Exception) -> str:
    cause = error.__cause__ or error
    message = str(cause).split("\n")[0] if str(cause) else str(error)
    keys = [argument.split("=", 1)[0].lstrip("+~") for argument in arguments]
    known = list(_leaves(OmegaConf.structured(schema)))
    for key in keys:
        if key not in known and not (CONF / key).is_dir() and not any(k.startswith(f"{key}.") for k in known):
            near = difflib.get_close_matches(key, known, 4, 0.5) or [k for k in known if k.endswith(key.split(".")[-1])]
            beside = [k for k in known if k.rpartition(".")[0] == key.rpartition(".")[0]]
            return f"there is no key {key!r}; did you mean {', '.join(near or beside)}?"
    bad = re.search(r"full_key: (\S+)", str(cause))
    return f"{bad.group(1) + ': ' if bad else ''}{message}"


def _leaves(node: Any, prefix: str = "") -> Iterator[str]:
    for key in node:
        name = f"{prefix}{key}"
        child = None if OmegaConf.is_missing(node, key) else node._get_node(key)
        if OmegaConf.is_dict(child) and child:
            yield from _leaves(child, f"{name}.")
        else:
            yield name


def _meant(argument: str) -> list[str]:
    """`model=FOLDER` is the exported model in that folder, `model=NAME` a preset of conf/model; train.mix adds keys."""
    key, _, value = argument.partition("=")
    if key == "train.mix":
        return [f"++{argument}"]
    preset = (CONF / "model" / f"{value}.yaml").is_file()
    if key == "model" and not preset and ("/" in value or Path(value).exists()):
        return ["model=trained", f"model.path={value}"]
    return [argument]


def _check_groups(overrides: Sequence[str]) -> None:
    for override in overrides:
        key, _, value = override.partition("=")
        folder = CONF / key
        if folder.is_dir() and not (folder / f"{value}.yaml").is_file():
            names = sorted(path.stem for path in folder.glob("*.yaml"))
            near = difflib.get_close_matches(value, names, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"{key}: expected one of {', '.join(names)}, got {value!r}{hint}")
