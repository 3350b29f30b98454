"""What source code does, whatever is said about it."""

from __future__ import annotations

import ast

from tunecast.records import stable_hash


def code_meaning(text: str) -> str:
    """A hash of what a module does: comments, docstrings and layout are no part of it.

    Another version of Python may parse the same text differently, and then gives another hash.

    Args:
        text: The module's source.

    Returns:
        32 hexadecimal digits.

    Raises:
        SyntaxError: The text is no Python.
    """
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            # Texts that nothing takes: docstrings, of attributes too.
            node.body = [part for part in node.body if not _is_text(part)]
    return stable_hash(ast.dump(tree), 32)


def _is_text(part: ast.stmt) -> bool:
    return (
        isinstance(part, ast.Expr)
        and isinstance(part.value, ast.Constant)
        and isinstance(part.value.value, str)
    )
