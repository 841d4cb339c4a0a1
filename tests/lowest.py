"""Print the lowest versions that pyproject.toml admits, as requirements; `make test-lowest` tests with them.

    python -m pip install $(python tests/lowest.py) --editable .
"""

import re
import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    from pip._vendor import tomli as tomllib  # Python 3.10 has none of its own, and nothing is installed yet

EXTRAS = ("test", "site")


def lowest(requirement: str) -> str:
    """name==1.2 of a requirement name>=1.2,<2.

    Raises:
        ValueError: it has another form.
    """
    found = re.fullmatch(r"([A-Za-z0-9_.-]+)>=([0-9.]+),<[0-9.]+", requirement)
    if not found:
        raise ValueError(f"requirement must have the form name>=1.2,<2, with a lowest and a limit; got {requirement!r}")
    return f"{found[1]}=={found[2]}"


def main() -> None:
    pyproject = Path(__file__).resolve().parent.parent / "pyproject.toml"
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    listed = project["dependencies"] + [requirement for extra in EXTRAS for requirement in project["optional-dependencies"][extra]]
    print(*dict.fromkeys(map(lowest, listed)))


if __name__ == "__main__":
    main()
