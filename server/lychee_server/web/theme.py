"""The page's colours and fonts: one accent colour, fonts of the reader's system only."""

from __future__ import annotations

from typing import Final

from gradio.themes import Base
from gradio.themes.utils import colors, sizes

# The red of a lychee's skin; 600 is the accent, 5.4 : 1 on white.
LYCHEE: Final = colors.Color(
    name="lychee",
    c50="#fdf2f4",
    c100="#fbe4e8",
    c200="#f6ccd4",
    c300="#eea5b2",
    c400="#e27489",
    c500="#d44a66",
    c600="#c2334d",
    c700="#a3263e",
    c800="#882338",
    c900="#742234",
    c950="#400e19",
)
SYSTEM_FONTS: Final = (
    "system-ui",
    "-apple-system",
    "Segoe UI",
    "Roboto",
    "PingFang SC",
    "Microsoft YaHei",
    "Noto Sans CJK SC",
    "WenQuanYi Micro Hei",
    "sans-serif",
)
MONOSPACE_FONTS: Final = ("ui-monospace", "SFMono-Regular", "Consolas", "DejaVu Sans Mono", "monospace")


def make_theme() -> Base:
    """Return the theme of the page."""
    return Base(
        primary_hue=LYCHEE,
        secondary_hue=LYCHEE,
        neutral_hue=colors.stone,
        radius_size=sizes.radius_md,
        font=SYSTEM_FONTS,
        font_mono=MONOSPACE_FONTS,
    ).set(
        body_background_fill="#faf9f7",
        body_background_fill_dark="#171514",
        body_text_color="#292524",
        body_text_color_subdued="#57534e",
        body_text_color_subdued_dark="#b5aea8",
        block_background_fill="#ffffff",
        block_background_fill_dark="#211e1c",
        block_border_width="1px",
        block_border_color="#e7e3df",
        block_border_color_dark="#3a3532",
        block_shadow="none",
        block_label_background_fill="transparent",
        block_label_background_fill_dark="transparent",
        block_label_border_width="0px",
        block_label_text_color="#44403c",
        block_label_text_color_dark="#d6d3d1",
        block_title_text_color="#44403c",
        block_title_text_color_dark="#d6d3d1",
        block_title_text_weight="600",
        block_info_text_color="#57534e",
        block_info_text_color_dark="#b5aea8",
        input_background_fill="#ffffff",
        input_background_fill_dark="#1b1918",
        input_border_color="#d6d1cc",
        input_border_color_dark="#4a4441",
        input_border_color_focus="#c2334d",
        input_border_color_focus_dark="#e27489",
        input_border_width="1px",
        input_placeholder_color="#78716c",
        input_placeholder_color_dark="#a8a29e",
        button_primary_background_fill="#c2334d",
        button_primary_background_fill_hover="#a3263e",
        button_primary_background_fill_dark="#c2334d",
        button_primary_background_fill_hover_dark="#d44a66",
        button_primary_text_color="#ffffff",
        button_primary_text_color_dark="#ffffff",
        button_secondary_background_fill="#ffffff",
        button_secondary_background_fill_hover="#f5f3f0",
        button_secondary_background_fill_dark="#2a2624",
        button_secondary_background_fill_hover_dark="#393431",
        button_secondary_border_color="#d6d1cc",
        button_secondary_border_color_dark="#4a4441",
        button_border_width="1px",
        slider_color="#c2334d",
        slider_color_dark="#e27489",
        loader_color="#c2334d",
        loader_color_dark="#e27489",
    )
