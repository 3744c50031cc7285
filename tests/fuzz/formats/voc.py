"""Pascal VOC's XML; one of two annotations is mutated."""

import copy
from random import Random
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from ..mutate import TEXTS, Files, mutate_bytes, mutate_lines
from .images import photos

XML = (
    "<annotation><folder>x</folder><filename>000001.png</filename>"
    "<size><width>8</width><height>6</height><depth>3</depth></size>"
    "<object><name>cat</name><difficult>0</difficult>"
    "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>4</xmax><ymax>5</ymax></bndbox>"
    "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin></bndbox></part></object>"
    "<object><name>dog</name>"
    "<bndbox><xmin>2.5</xmin><ymin>1</ymin><xmax>8</xmax><ymax>6</ymax></bndbox></object>"
    "</annotation>"
)
TAGS = ("object", "bndbox", "size", "name", "A")
WORDS = (*TEXTS[:-1], "0", "-5", "1e300", "inf", "nan", "3.5", "2147483648", "9" * 5000)
ENCODINGS = ("utf-8", "utf-8", "utf-8", "utf-16", "gbk", "latin-1", "utf-7")
ENTITIES = (
    f'<!DOCTYPE annotation [<!ENTITY a "{"x" * 1000}">'
    + "".join(f'<!ENTITY {new} "{f"&{old};" * 30}">' for old, new in zip("abcd", "bcde"))
    + "]>",
    '<!DOCTYPE annotation [<!ENTITY e SYSTEM "file:///etc/passwd">]>',
    '<!DOCTYPE annotation SYSTEM "http://localhost:9/x.dtd">',
)


def voc_set(random: Random, sound: bool) -> Files:
    """An annotation whose elements are removed, repeated, nested or changed."""
    listed = "000001\n000002 1\n"
    files = {
        "VOC/Annotations/000001.xml": XML.encode() if sound else _changed(random),
        "VOC/Annotations/000002.xml": XML.encode(),
        "VOC/ImageSets/Main/train.txt": listed.encode(),
        **photos(random, "VOC/JPEGImages", sound),
    }
    if not sound and random.random() < 0.15:
        files["VOC/ImageSets/Main/train.txt"] = mutate_lines(random, listed)
    return files


def _changed(random: Random) -> bytes:
    """The annotation mutated as a tree, as text and as bytes."""
    root = ElementTree.fromstring(XML)
    for _ in range(random.choice((1, 1, 2, 3))):
        _change_element(random, root)
    text = _written(root)
    if random.random() < 0.1:
        text = random.choice(ENTITIES) + text.replace("cat", "&e;")
    if random.random() < 0.05:
        text = "<a>" * 50_000 + text
    if random.random() < 0.1:
        text = text.replace("<annotation>", '<annotation xmlns="http://x">')
    encoding = random.choice(ENCODINGS)
    if random.random() < 0.5:
        declared = encoding if random.random() < 0.9 else "x\x1b"
        text = f'<?xml version="1.0" encoding="{declared}"?>{text}'
    content = text.encode(encoding, "replace")
    return mutate_bytes(random, content) if random.random() < 0.2 else content


def _change_element(random: Random, root: ElementTree.Element) -> None:
    parent = random.choice([element for element in root.iter() if len(element)] or [root])
    if not len(parent):
        return
    child = random.choice(parent)
    kind = random.randrange(6)
    if kind == 0:
        parent.remove(child)
    elif kind == 1:
        parent.extend(copy.deepcopy(child) for _ in range(random.choice((1, 2, 300))))
    elif kind == 2:
        child.tag = random.choice(TAGS)
    elif kind == 3:
        child.append(copy.deepcopy(parent))
    else:
        child.text = random.choice(WORDS)


def _written(element: ElementTree.Element) -> str:
    """Write as ``ElementTree`` does, but with any text."""
    inner = escape(element.text or "") + "".join(map(_written, element))
    return f"<{element.tag}>{inner}</{element.tag}>"
