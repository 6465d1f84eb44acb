"""Named instructions: what a model is told to judge."""

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
    "all_instructions",
    "bundled_instructions",
    "get_instruction",
    "get_template",
    "import_instructions",
    "load_instructions",
    "save_instructions",
]
