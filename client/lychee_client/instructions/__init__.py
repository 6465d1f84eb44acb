"""Named instructions: what a model is told to judge."""

from lychee_client.instructions.lint import LintWarning, lint_instruction
from lychee_client.instructions.templates import (
    InstructionTemplate,
    Language,
    all_instructions,
    bundled_instructions,
    get_instruction,
    get_template,
    import_instructions,
    load_instructions,
    save_instructions,
)

__all__ = [
    "InstructionTemplate",
    "Language",
    "LintWarning",
    "all_instructions",
    "bundled_instructions",
    "get_instruction",
    "get_template",
    "import_instructions",
    "lint_instruction",
    "load_instructions",
    "save_instructions",
]
