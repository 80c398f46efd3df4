"""How a letter looks: plain text, and HTML for light, dark and picture-less mail programs."""

from html import escape
from string import Template

from openclaw_web.accounts.letters import Letter

NAME = "OpenClaw Cloud"

_PAGE = Template("""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="supported-color-schemes" content="light dark">
<title>$subject</title>
<style>
:root { color-scheme: light dark; }
@media (prefers-color-scheme: dark) {
  .page { background: #111113 !important; }
  .card { background: #19191b !important; border-color: #2e3035 !important; }
  .strong { color: #edeef0 !important; }
  .text { color: #b0b4ba !important; }
  .code { background: #212225 !important; color: #edeef0 !important; }
}
</style>
</head>
<body class="page" style="margin:0;background:#f5f5f7;">
<div style="display:none;max-height:0;overflow:hidden;">$preview</div>
<table role="presentation" class="page" width="100%" cellpadding="0" cellspacing="0"
 style="background:#f5f5f7;">
<tr><td align="center" style="padding:40px 16px;">
<table role="presentation" width="100%" cellpadding="0" cellspacing="0" style="max-width:480px;
 font-family:Inter,-apple-system,'Segoe UI',Roboto,Helvetica,Arial,sans-serif;">
<tr><td class="strong"
 style="padding:0 4px 18px;font-size:15px;font-weight:600;color:#1c2024;">$name</td></tr>
<tr><td class="card"
 style="background:#ffffff;border:1px solid #e6e6ea;border-radius:16px;padding:32px;">
<h1 class="strong"
 style="margin:0 0 14px;font-size:21px;line-height:1.3;font-weight:650;color:#1c2024;">$heading</h1>
$body</td></tr>
<tr><td class="text"
 style="padding:18px 4px 0;font-size:12.5px;line-height:1.5;color:#60646c;">$closing</td></tr>
</table>
</td></tr>
</table>
</body>
</html>
""")
_PARAGRAPH = Template("""\
<p class="text" style="margin:0 0 14px;font-size:15.5px;line-height:1.55;color:#60646c;">$text</p>
""")
_CODE = Template("""\
<p class="code" style="margin:8px 0 4px;padding:18px;border-radius:12px;background:#f0f0f3;
 text-align:center;font:600 28px/1.2 ui-monospace,Menlo,Consolas,monospace;letter-spacing:5px;
 color:#1c2024;">$code</p>
""")
_BUTTON = Template("""\
<p style="margin:22px 0 2px;"><a href="$address" style="display:inline-block;padding:12px 20px;
 border-radius:10px;background:#5b5bd6;color:#ffffff;font-size:15px;font-weight:600;
 text-decoration:none;">$label</a></p>
""")


def as_text(letter: Letter) -> str:
    """Return the letter for mail programs that show no HTML."""
    parts = [letter.heading, *letter.paragraphs]
    if letter.code:
        parts.append(f"    {letter.code}")
    if letter.address:
        parts.append(f"{letter.button}: {letter.address}")
    return "\n\n".join([*parts, f"-- \n{NAME}\n{letter.closing}"]) + "\n"


def as_html(letter: Letter) -> str:
    """Return the letter as one HTML page without pictures, scripts or anything fetched."""
    body = [_PARAGRAPH.substitute(text=escape(text)) for text in letter.paragraphs]
    if letter.code:
        body.append(_CODE.substitute(code=escape(letter.code)))
    if letter.address:
        address, label = escape(letter.address), escape(letter.button)
        body.append(_BUTTON.substitute(address=address, label=label))
    return _PAGE.substitute(
        name=NAME,
        subject=escape(letter.subject),
        heading=escape(letter.heading),
        preview=escape(letter.paragraphs[0]),
        body="".join(body),
        closing=escape(letter.closing),
    )
