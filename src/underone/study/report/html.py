"""HTML from the templates of packages."""

from importlib.resources import files

import jinja2


def templates(*packages: str) -> jinja2.Environment:
    """The templates of packages, each from the first that has it, with values escaped.

    A name that a template uses and is not given is an error.
    """

    def source(name: str) -> str | None:
        found = [path for package in packages if (path := files(package) / name).is_file()]
        return found[0].read_text(encoding="utf-8") if found else None

    return jinja2.Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        loader=jinja2.FunctionLoader(source),
    )
