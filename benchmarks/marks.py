"""Parts of a page that programs write: the text between ``<!-- NAME -->`` and
``<!-- end of NAME -->``.
"""

import re


def with_part(page: str, name: str, text: str) -> str:
    """``page`` with ``text`` between the marks of ``name``, or added at the end without them."""
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    block = f"{begin}\n{text}\n{end}"
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    if pattern.search(page):
        return pattern.sub(lambda _: block, page)
    return f"{page.rstrip()}\n\n{block}\n"


def part(page: str, name: str) -> str:
    """The text between the marks of ``name``; empty without marks."""
    found = re.search(f"<!-- {name} -->(.*?)<!-- end of {name} -->", page, re.DOTALL)
    return found[1] if found else ""
