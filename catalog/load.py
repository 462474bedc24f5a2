"""Read a catalogue from YAML: one file, or a folder with ``catalog.yaml`` and one file per app in ``apps/``.

Everything wrong is reported at once, each as ``file:line: path: cause. next step``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from catalog import models
from catalog.errors import Invalid, Problem
from catalog.models import App, Catalog
from catalog.rules import broken
from catalog.source import Location, Source

NAME = "catalog.yaml"


def load(path: Path | str) -> Catalog:
    """The catalogue at ``path``, validated and free of contradictions.

    Raises ``Invalid`` with all problems; nothing is returned half-valid.
    """
    main = _main_file(Path(path))
    places = list(_apps(main))
    problems: list[Problem] = []
    apps: list[App] = []
    for place in places:
        try:
            apps.append(App.model_validate(place.value))
        except ValidationError as error:
            problems.extend(_explained(place, error))
    if not problems:
        problems = [
            place.problem(location, cause, remedy)
            for place, app in zip(places, apps, strict=True)
            for location, cause, remedy in broken(app, main.parent)
        ] + _same_key(places, apps)
    if problems:
        raise Invalid(sorted(problems, key=lambda p: (str(p.file), p.line)))
    return Catalog(apps=tuple(apps))


def folder(path: Path | str) -> Path:
    """The folder that relative paths in the catalogue (suites, canary events) start from."""
    return _main_file(Path(path)).parent


class _Place:
    """One app's mapping inside a source."""

    def __init__(self, source: Source, at: tuple[str | int, ...], value: Any) -> None:
        self.source, self.at, self.value = source, at, value

    def problem(self, location: Location, cause: str, remedy: str) -> Problem:
        return self.source.problem((*self.at, *location), cause, remedy)


def _main_file(path: Path) -> Path:
    return path / NAME if path.is_dir() else path


def _apps(main: Path) -> Iterator[_Place]:
    source = Source(main)
    top = source.value
    parts = sorted((main.parent / "apps").glob("*.yaml")) if main.name == NAME else []
    if not isinstance(top, dict):
        raise Invalid([source.problem((), "a mapping is expected here", "Start the file with `apps:`")])
    for name in top:
        if name != "apps":
            raise Invalid([source.problem((str(name),), "unknown name", "Only `apps:` stands at the top")])
    listed = top.get("apps") or []
    if not isinstance(listed, list):
        raise Invalid([source.problem(("apps",), "a list is expected here", "Start each app with `- key:`")])
    if not listed and not parts:
        raise Invalid([source.problem(("apps",), "no app is described", "Add one here or as apps/NAME.yaml")])
    for i, value in enumerate(listed):
        yield _Place(source, ("apps", i), value)
    for part in parts:
        one = Source(part)
        yield _Place(one, (), one.value)


def _same_key(places: list[_Place], apps: list[App]) -> list[Problem]:
    seen: set[str] = set()
    found = []
    for place, app in zip(places, apps, strict=True):
        if app.key in seen:
            found.append(place.problem(("key",), f"app {app.key!r} is described twice", "Rename one of them"))
        seen.add(app.key)
    return found


def _explained(place: _Place, error: ValidationError) -> Iterator[Problem]:
    """pydantic's errors in our words. The input is never quoted: it may be a secret in the wrong place."""
    for item in error.errors(include_url=False, include_context=False, include_input=False):
        location, kind, message = item["loc"], item["type"], item["msg"]
        name = str(location[-1]) if location else ""
        match kind:
            case "missing":
                yield place.problem(location, "required, but not given", f"Add `{name}:`")
            case "extra_forbidden":
                yield place.problem(location, "unknown name", _did_you_mean(name))
            case "string_pattern_mismatch" if _is_secret(location):
                yield place.problem(
                    location, "a secret must be a reference", "Write env:NAME or file:PATH, never the value itself"
                )
            case _:
                yield place.problem(location, _lower(message), "Correct the value")


def _is_secret(location: Location) -> bool:
    return len(location) >= 2 and location[-2] in ("database", "platform", "headers")


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def _did_you_mean(name: str) -> str:
    family: list[type[models.Model]] = [App, *models.Model.__subclasses__()]
    known = {field for model in family for field in model.model_fields}
    close = difflib.get_close_matches(name, sorted(known), n=1)
    return f"Remove it, or did you mean `{close[0]}:`?" if close else "Remove it"
