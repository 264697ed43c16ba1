"""`make format`: copies the output of `agentft train --settings` into docs/settings.md."""

from __future__ import annotations

import re
from pathlib import Path

from agentft.training.recipe import describe_settings

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"


def main() -> None:
    before, _, rest = PAGE.read_text(encoding="utf-8").partition("```toml\n")
    after = re.split(r"^```$", rest, maxsplit=1, flags=re.MULTILINE)[1]
    PAGE.write_text(f"{before}```toml\n{describe_settings()}```{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
