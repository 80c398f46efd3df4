"""Charts, in the theme's colours."""

import reflex as rx

# JavaScript that the browser runs: 45000 is written 45k, like `format.tokens_short` does.
SHORT_TICKS = (
    "(value) => value >= 1e6 ? `${value / 1e6}M` : value >= 1e3 ? `${value / 1e3}k` : `${value}`"
)
AXIS = {"fontSize": 12, "fill": "var(--gray-11)"}


def daily_tokens(
    data: list[dict[str, str | int]] | rx.Var[list[dict[str, str | int]]], *, height: int = 260
) -> rx.Component:
    """Draw tokens by day, stacked: what was sent, and what was answered.

    Each row has `day` (short text), `prompt` and `completion` (tokens).
    """
    return rx.recharts.bar_chart(
        rx.recharts.cartesian_grid(horizontal=True, vertical=False, stroke="var(--gray-a4)"),
        rx.recharts.x_axis(
            data_key="day",
            tick_line=False,
            axis_line=False,
            tick=AXIS,
            interval="preserveStartEnd",
            min_tick_gap=24,
        ),
        rx.recharts.y_axis(
            tick_line=False,
            axis_line=False,
            tick=AXIS,
            width=56,
            tick_formatter=SHORT_TICKS,
            tick_count=4,
        ),
        rx.recharts.graphing_tooltip(
            cursor={"fill": "var(--gray-a3)"},
            content_style={
                "background": "var(--color-panel-solid)",
                "border": "1px solid var(--gray-a5)",
                "borderRadius": "10px",
                "fontSize": "13px",
            },
        ),
        rx.recharts.bar(
            data_key="prompt",
            name="Sent to the model",
            stack_id="tokens",
            fill="var(--accent-9)",
            max_bar_size=36,
        ),
        rx.recharts.bar(
            data_key="completion",
            name="Answered",
            stack_id="tokens",
            fill="var(--accent-6)",
            radius=[6, 6, 0, 0],
            max_bar_size=36,
        ),
        data=data,
        width="100%",
        height=height,
    )
