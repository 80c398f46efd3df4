"""Encrypting, fingerprints and derived keys."""

import pytest
from cryptography.exceptions import InvalidTag

from openclaw_web.core import secrets, settings
from openclaw_web.core.errors import SettingsError


@pytest.fixture
def server_key(monkeypatch):
    """Change the server key, as another deployment would have it."""

    def change(value: str) -> None:
        monkeypatch.setenv("SECRET_KEY", value)
        forget()

    def forget() -> None:
        settings.settings.cache_clear()
        secrets.derive_key.cache_clear()

    yield change
    monkeypatch.undo()
    forget()


def test_what_was_encrypted_can_be_read_again():
    sealed = secrets.encrypt("a purpose", "grün")
    assert "grün".encode() not in sealed
    assert secrets.decrypt("a purpose", sealed) == "grün"


def test_the_same_text_is_never_sealed_the_same_way_twice():
    assert secrets.encrypt("a purpose", "x") != secrets.encrypt("a purpose", "x")


def test_another_purpose_cannot_read_it():
    with pytest.raises(InvalidTag):
        secrets.decrypt("another purpose", secrets.encrypt("a purpose", "x"))


def test_a_changed_byte_is_noticed():
    sealed = bytearray(secrets.encrypt("a purpose", "x"))
    sealed[-1] ^= 1
    with pytest.raises(InvalidTag):
        secrets.decrypt("a purpose", bytes(sealed))


def test_a_fingerprint_is_the_same_for_the_same_value_and_purpose_only():
    known = secrets.fingerprint("a purpose", "value")
    assert known == secrets.fingerprint("a purpose", "value")
    assert known != secrets.fingerprint("another purpose", "value")
    assert known != secrets.fingerprint("a purpose", "other value")


def test_another_server_key_derives_other_keys(server_key):
    before = secrets.derive_key("a purpose")
    server_key("A" * 43 + "=")
    assert secrets.derive_key("a purpose") != before


@pytest.mark.parametrize("value", ["not base64!", "c2hvcnQ="], ids=["no base64", "too short"])
def test_a_bad_server_key_is_refused_by_name(server_key, value):
    server_key(value)
    with pytest.raises(SettingsError, match=r"SECRET_KEY.*openssl rand -base64 32"):
        secrets.derive_key("a purpose")
