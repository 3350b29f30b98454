"""Reads PPTX and XLSX, and PDF by its layout, with docling: an extra."""

from __future__ import annotations

import functools
import importlib.util
import logging
from pathlib import Path
from typing import Any

from tunecast.documents.archives import checked_archive
from tunecast.documents.document import Builder
from tunecast.errors import DataError


def read_slides_or_sheets(path: Path, into: Builder) -> None:
    """Read a presentation, whose slides are pages, or a workbook, whose sheets are.

    Raises:
        DataError: docling is not installed, or the archive is damaged or beyond a limit.
    """
    if not is_installed():
        raise DataError(
            f"{path} can only be read by docling, which is not installed.",
            "Install it: pip install 'tunecast[docling]'",
        )
    checked_archive(path).close()
    read_converted(path, into)


def is_installed() -> bool:
    """Whether docling is installed."""
    return importlib.util.find_spec("docling") is not None


def reads_layout() -> bool:
    """Whether docling is installed, and has its models for the layout of PDF or can fetch them now."""
    return is_installed() and _has_layout_models()


@functools.cache
def _has_layout_models() -> bool:
    from docling.datamodel.base_models import InputFormat

    try:
        _converter().initialize_pipeline(InputFormat.PDF)
    except Exception:  # whatever a missing library or a hub out of reach leads to; pypdf reads the file then
        return False
    return True


def read_converted(path: Path, into: Builder) -> None:
    """Read what docling makes of a file: headings, paragraphs, lists, tables and code, each with its page."""
    from docling_core.types.doc.document import (
        CodeItem,
        ListItem,
        SectionHeaderItem,
        TableItem,
        TextItem,
        TitleItem,
    )

    document = _converter().convert(path).document
    for item, _ in document.iterate_items():
        page = next((one.page_no for one in getattr(item, "prov", ())), None)
        if isinstance(item, TitleItem):
            into.heading(item.text, 1)
        elif isinstance(item, SectionHeaderItem):
            into.heading(item.text, item.level)
        elif isinstance(item, TableItem):
            into.add("table", "\n".join(_rows(item)), page=page)
        elif isinstance(item, ListItem):
            into.add("list", item.text, page=page)
        elif isinstance(item, CodeItem):
            into.add("code", item.text, page=page)
        elif isinstance(item, TextItem):
            into.add("paragraph", item.text, page=page)


def _rows(table: Any) -> list[str]:
    return [" | ".join(" ".join(cell.text.split()) for cell in row) for row in table.data.grid]


@functools.cache
def _converter() -> Any:
    """Return a converter that recognises no text in pictures: what is not text is not guessed at."""
    from docling.datamodel.base_models import InputFormat
    from docling.datamodel.pipeline_options import PdfPipelineOptions
    from docling.document_converter import DocumentConverter, PdfFormatOption

    logging.getLogger("docling").setLevel(logging.CRITICAL)
    layout = PdfFormatOption(pipeline_options=PdfPipelineOptions(do_ocr=False))
    formats = [InputFormat.PDF, InputFormat.PPTX, InputFormat.XLSX]
    return DocumentConverter(allowed_formats=formats, format_options={InputFormat.PDF: layout})
