"""The mail server and its inbox."""

import smtplib
from email.message import EmailMessage

import pytest

from tests.contracts.simulator_process import eventually, free_port, running


@pytest.fixture(scope="module")
def smtp_port():
    return free_port()


@pytest.fixture(scope="module")
def mail(tmp_path_factory, smtp_port):
    folder = tmp_path_factory.mktemp("mail")
    with running("mail", folder, "--smtp-port", str(smtp_port)) as simulator:
        yield simulator


@pytest.fixture(autouse=True)
def _empty(mail):
    mail.http.delete("/_control/messages")


def send(port, *, to="mia@example.com", subject="Grüße", text="hällo\n", html=""):
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "Cloud <hello@example.com>", to, subject
    message.set_content(text)
    if html:
        message.add_alternative(html, subtype="html")
    with smtplib.SMTP("127.0.0.1", port, timeout=10) as smtp:
        smtp.send_message(message)


def messages(mail, to=""):
    return mail.http.get("/_control/messages", params={"to": to}).json()


def test_a_mail_arrives_with_text_and_html(mail, smtp_port):
    send(smtp_port, html="<p>hällo</p>")
    (found,) = messages(mail)
    assert found["from"] == "Cloud <hello@example.com>"
    assert found["to"] == ["mia@example.com"]
    assert (found["subject"], found["text"].strip()) == ("Grüße", "hällo")
    assert found["html"].strip() == "<p>hällo</p>"
    assert found["received_at"].endswith("+00:00")


def test_mails_are_found_by_recipient_newest_first(mail, smtp_port):
    for to, subject in [
        ("mia@example.com", "1"),
        ("leo@example.com", "2"),
        ("mia@example.com", "3"),
    ]:
        send(smtp_port, to=to, subject=subject)
    assert [one["subject"] for one in messages(mail, "MIA@")] == ["3", "1"]
    assert messages(mail, "nobody@") == []


def test_the_inbox_keeps_the_latest_500(mail, smtp_port):
    with smtplib.SMTP("127.0.0.1", smtp_port, timeout=10) as smtp:
        for number in range(505):
            smtp.sendmail("a@b.example", ["c@d.example"], f"Subject: {number}\r\n\r\nx")
    kept = messages(mail)
    assert (len(kept), kept[0]["subject"], kept[-1]["subject"]) == (500, "504", "5")


def test_a_broken_mail_is_shown_as_far_as_it_can_be_read(mail, smtp_port):
    raw = b"Subject: odd\r\nContent-Type: text/plain; charset=klingon\r\n\r\nnuqneH"
    with smtplib.SMTP("127.0.0.1", smtp_port, timeout=10) as smtp:
        smtp.sendmail("a@b.example", ["c@d.example"], raw)
    (found,) = messages(mail)
    assert (found["subject"], found["text"].strip()) == ("odd", "nuqneH")


def test_the_page_shows_the_list_and_a_mail(mail, smtp_port):
    send(smtp_port, subject="Your code", text="482 913")
    listing = mail.http.get("/api/mails").json()
    (row,) = listing["mails"]
    assert (row["subject"], row["snippet"]) == ("Your code", "482 913")
    assert mail.http.get(f"/api/mails/{row['id']}").json()["text"].strip() == "482 913"
    asked = {"since": listing["version"]}
    assert mail.http.get("/api/mails", params=asked).json() == {"version": listing["version"]}
    page = mail.http.get("/")
    assert 'sandbox="allow-popups' in page.text
    assert "script-src 'nonce-" in page.headers["content-security-policy"]


def test_mails_survive_a_kill(mail, smtp_port):
    send(smtp_port, subject="kept")
    mail.restart(9)
    assert [one["subject"] for one in messages(mail)] == ["kept"]
    assert mail.rss_megabytes() < 50
    eventually(lambda: send(smtp_port, subject="again") is None)
    assert [one["subject"] for one in messages(mail)] == ["again", "kept"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": "https://evil.example"}, 403),
        ({"host": "evil.example"}, 421),
        ({"x-simulator-token": "wrong"}, 401),
    ],
    ids=["foreign origin", "wrong host", "no token"],
)
def test_web_pages_of_others_are_kept_out(mail, headers, status):
    assert mail.http.delete("/_control/messages", headers=headers).status_code == status


def test_a_simple_request_is_refused(mail):
    headers = {"content-type": "text/plain"}
    assert mail.http.post("/_control/messages", content=b"x", headers=headers).status_code == 415
