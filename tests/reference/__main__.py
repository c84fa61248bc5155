"""Write anew all that is written from the grammar."""

from __future__ import annotations

from tests.reference.files import wanted_files


def main() -> None:
    for path, text in wanted_files():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


if __name__ == "__main__":
    main()
