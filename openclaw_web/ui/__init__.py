"""Shell, theme, charts, badges and formats. Knows no area."""
