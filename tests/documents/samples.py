"""Tiny documents of every type, made where a test needs them."""

from __future__ import annotations

import zipfile
from pathlib import Path

PROSE = (
    "A turbine is a machine that turns the flow of a fluid into work. Steam drives most of them. "
    "Their blades are made of alloys that bear great heat."
)
PAGE = f"""<html><head><title>Turbines</title></head><body><nav>Menu</nav><h1>Turbines</h1><p>{PROSE}</p>
<h2>What drives a turbine?</h2><div>Steam, gas, water or wind drive it, depending on where it stands.</div>
<table><tr><th>kind</th><th>power</th></tr><tr><td>wind</td><td>3 MW</td></tr></table>
<dl><dt>rotor</dt><dd>The part of the turbine that turns within its housing.</dd></dl>
<script>alert("no")</script></body></html>"""


def pdf(
    path: Path, pages: list[list[str]], *, outline: dict[str, int] | None = None, password: str = ""
) -> Path:
    """Write a PDF with lines of text on each page, and bookmarks by 0-based page."""
    from pypdf import PdfWriter
    from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject

    writer = PdfWriter()
    font = DictionaryObject(
        {
            NameObject("/Type"): NameObject("/Font"),
            NameObject("/Subtype"): NameObject("/Type1"),
            NameObject("/BaseFont"): NameObject("/Helvetica"),
        }
    )
    for lines in pages:
        page = writer.add_blank_page(612, 792)
        page[NameObject("/Resources")] = DictionaryObject(
            {NameObject("/Font"): DictionaryObject({NameObject("/F1"): font})}
        )
        stream = DecodedStreamObject()
        text = "".join(f"({line}) Tj 0 -14 Td " for line in lines)
        stream.set_data(f"BT /F1 12 Tf 72 720 Td {text}ET".encode("latin-1"))
        page[NameObject("/Contents")] = writer._add_object(stream)
    for title, page_number in (outline or {}).items():
        writer.add_outline_item(title=title, page_number=page_number)
    if password:
        writer.encrypt(password, algorithm="RC4-128")
    with path.open("wb") as file:
        writer.write(file)
    return path


def docx(path: Path) -> Path:
    """Write a DOCX with two headings, paragraphs, a list and a table."""
    from docx import Document

    document = Document()
    document.add_heading("Turbines", 1)
    document.add_paragraph(PROSE)
    document.add_heading("Kinds", 2)
    document.add_paragraph("Wind turbines stand on towers.", style="List Bullet")
    table = document.add_table(rows=2, cols=2)
    for row, texts in zip(table.rows, (("kind", "power"), ("wind", "3 MW")), strict=True):
        for cell, text in zip(row.cells, texts, strict=True):
            cell.text = text
    document.save(str(path))
    return path


def pptx(path: Path) -> Path:
    """Write a presentation of two slides: a title, points under it, and a table on the second."""
    from pptx import Presentation
    from pptx.util import Inches

    slides = Presentation()
    for title, points in (("Turbines", f"{PROSE}\nThey turn."), ("Kinds", "Wind turbines stand on towers.")):
        slide = slides.slides.add_slide(slides.slide_layouts[1])
        slide.shapes.title.text = title
        slide.placeholders[1].text = points
    table = slide.shapes.add_table(2, 2, Inches(1), Inches(4), Inches(5), Inches(1)).table
    for row, texts in enumerate((("kind", "power"), ("wind", "3 MW"))):
        for column, text in enumerate(texts):
            table.cell(row, column).text = text
    slides.save(str(path))
    return path


def xlsx(path: Path) -> Path:
    """Write a workbook of two sheets with a table each."""
    from openpyxl import Workbook

    book = Workbook()
    for row in (("kind", "power"), ("wind", "3 MW")):
        book.active.append(row)
    more = book.create_sheet("More")
    for line in (("gear", "teeth"), ("first", 12)):
        more.append(line)
    book.save(str(path))
    return path


def epub(path: Path, chapter: str = PAGE, container: str = "") -> Path:
    """Write an EPUB of two chapters, whose file names are not in reading order."""
    container = container or '<container><rootfile full-path="OEBPS/content.opf"/></container>'
    package = (
        '<package xmlns="http://www.idpf.org/2007/opf"><manifest><item id="b" href="a%20second.xhtml"/>'
        '<item id="a" href="text/first.xhtml"/></manifest>'
        '<spine><itemref idref="a"/><itemref idref="b"/></spine></package>'
    )
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("META-INF/container.xml", container)
        archive.writestr("OEBPS/content.opf", package)
        archive.writestr("OEBPS/text/first.xhtml", chapter)
        archive.writestr("OEBPS/a second.xhtml", "<h1>Gears</h1><p>Gears change speed.</p>")
    return path
