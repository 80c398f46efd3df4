"""What the sign-in pages say for the codes that our forms put into an address."""

SENTENCES = {
    "bad_email": "That does not look like an e-mail address. Please check it.",
    "too_many": "Too many tries. Please wait fifteen minutes and try again.",
    "wrong_code": "That code is not right. Check the newest mail from us, or ask for another code.",
    "expired_code": "That code is no longer valid. Ask for a new one.",
    "wrong_password": "E-mail address and password do not fit together.",
    "signed_out": "You are signed out.",
}
UNKNOWN = "Something went wrong. Please try again."


def sentence_of(code: str) -> str:
    """Return the sentence for a code: empty for none, a general one for a foreign code."""
    return SENTENCES.get(code, UNKNOWN) if code else ""
