"""Badges that open the course in Binder and Colab, from [tool.pulib.site] in pyproject.toml.

    python docs/badges.py        # write them into README.md; the site's pages get theirs when it is built
"""

import re
import sys
from pathlib import Path
from urllib.parse import quote

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
FIRST = "notebooks/01_ddpm.ipynb"
REGION = re.compile(r"(<!-- badges: python docs/badges.py -->\n).*?(<!-- end of badges -->)", re.DOTALL)


def settings() -> tuple[str, str]:
    """Repository ("owner/name", or empty) and branch."""
    site = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["pulib"]["site"]
    return site["repository"], site["branch"]


def line(path: str, repository: str, branch: str, to_root: str = "") -> str:
    """Markdown with both badges for a notebook; empty when there is no repository, as dead badges help nobody.

    Raises:
        ValueError: the repository is not of the form owner/name.
    """
    if not repository:
        return ""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise ValueError(f"repository must be 'owner/name' or empty; got {repository!r}")
    binder = f"https://mybinder.org/v2/gh/{repository}/{quote(branch, safe='')}?labpath={quote(path, safe='')}"
    colab = f"https://colab.research.google.com/github/{repository}/blob/{quote(branch)}/{quote(path)}"
    images = f"{to_root}docs/_static"
    return f"[![Open in Binder]({images}/binder.svg)]({binder}) [![Open in Colab]({images}/colab.svg)]({colab})"


def readme(text: str, repository: str, branch: str) -> str:
    """README.md with its badges brought up to date."""
    badges = line(FIRST, repository, branch)
    return REGION.sub(lambda found: found[1] + (badges + "\n") * bool(badges) + found[2], text)


if __name__ == "__main__":
    path = ROOT / "README.md"
    path.write_text(readme(path.read_text(encoding="utf-8"), *settings()), encoding="utf-8", newline="\n")
