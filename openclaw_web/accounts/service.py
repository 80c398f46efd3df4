"""Who may come in: customers, codes, passwords, sessions; and what is written down about it."""

import hmac
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import sqlalchemy as sa
from email_validator import EmailNotValidError, validate_email
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.accounts import limits, queries
from openclaw_web.accounts.mails import CODE_MINUTES, MailKind
from openclaw_web.accounts.models import (
    AuditLog,
    AuthSession,
    Customer,
    CustomerAuth,
    CustomerProfile,
    OutboxMail,
    Role,
    SignInCode,
)
from openclaw_web.accounts.queries import Principal, find_customer, find_customer_by_email
from openclaw_web.core.clock import business_now, real_now
from openclaw_web.core.database import after_commit
from openclaw_web.core.errors import NotFoundError, ValidationError
from openclaw_web.core.secrets import encrypt, fingerprint, key_id
from openclaw_web.core.security import (
    hash_password,
    new_code,
    new_token,
    password_matches,
    token_hash,
)
from openclaw_web.core.settings import settings
from openclaw_web.integrations import redis

CODE_LIFE = timedelta(minutes=CODE_MINUTES)
CODE_ATTEMPTS = 5
SESSION_LIFE = timedelta(days=30)
SEEN_EVERY = timedelta(minutes=1)
SHORTEST_PASSWORD = 12
LONGEST_PASSWORD = 256
USER_AGENT_LENGTH = 400
MAIL_SECRET = "mail secret"  # noqa: S105 - the purpose of a key, not a secret
MAIL_BELL = "mail"


class SignInError(ValidationError):
    """A code cannot be sent; `code` is one of `messages.SENTENCES`."""

    def __init__(self, sentence: str, *, code: str) -> None:
        super().__init__(sentence)
        self.code = code


@dataclass(frozen=True, kw_only=True)
class SignedIn:
    """A new session. Its token exists only here and in the browser's cookie."""

    customer_id: UUID
    role: str
    token: str = field(repr=False)


@dataclass(frozen=True)
class Refused:
    """Why somebody did not get in, as a code of `messages.SENTENCES`.

    A value, not an exception: the failed try has to be committed.
    """

    code: str


def normal_email(email: str) -> str:
    """Return an address in the one spelling that we store: valid and in lower case.

    Raises:
        SignInError: it is no e-mail address.
    """
    is_local = not settings().is_production  # on a laptop somebody@box.test will do
    try:
        checked = validate_email(
            email.strip(), check_deliverability=False, test_environment=is_local
        )
    except EmailNotValidError as error:
        raise SignInError("That is not an e-mail address.", code="bad_email") from error
    return checked.normalized.lower()


async def ensure_customer(session: AsyncSession, email: str) -> Customer:
    """Return the customer with this address, made now if there is none.

    Raises:
        SignInError: it is no e-mail address, or its account is being deleted.
    """
    email = normal_email(email)
    now = await business_now(session)
    await session.exec(
        insert(Customer).values(id=uuid4(), email=email, created_at=now).on_conflict_do_nothing()
    )
    customer = await find_customer_by_email(session, email)
    if customer is None:
        raise SignInError("This account is being deleted.", code="bad_email")
    for table in (CustomerAuth, CustomerProfile):
        row = insert(table).values(customer_id=customer.id, updated_at=now)
        await session.exec(row.on_conflict_do_nothing())
    return customer


async def request_code(session: AsyncSession, email: str, *, ip: str | None) -> None:
    """Mail a one-time code, to a known and to an unknown address alike; older codes stop working.

    Raises:
        SignInError: it is no e-mail address, or there were too many requests.
    """
    email, ip, now = normal_email(email), limits.client_address(ip), real_now()
    if not await limits.may_send_code(session, email=email, ip=ip):
        raise SignInError("Too many codes were asked for. Wait fifteen minutes.", code="too_many")
    await session.exec(
        sa.update(SignInCode)
        .where(col(SignInCode.email) == email, col(SignInCode.used_at).is_(None))
        .values(used_at=now)
    )
    code, row_id = new_code(), uuid4()
    session.add(
        SignInCode(
            id=row_id,
            email=email,
            code_hash=_code_hash(row_id, code),
            created_at=now,
            expires_at=now + CODE_LIFE,
        )
    )
    await audit(session, action=limits.CODE_SENT, actor_type="visitor", ip=ip, **_account(email))
    await queue_mail(session, kind=MailKind.CODE, recipient=email, secret=code)


async def confirm_code(
    session: AsyncSession, email: str, code: str, *, ip: str | None, user_agent: str | None
) -> SignedIn | Refused:
    """Sign somebody in who knows the code; the first time this makes their account.

    Commit whatever comes back: a refusal counts.
    """
    try:
        email = normal_email(email)
    except SignInError as error:
        return Refused(error.code)
    ip = limits.client_address(ip)
    if not await limits.may_try_code(session, ip=ip):
        return Refused("too_many")
    row = await _usable_code(session, email)
    if row is None:
        return Refused("expired_code")
    row.attempts += 1
    digits = "".join(one for one in code if one.isdigit())
    if not hmac.compare_digest(row.code_hash, _code_hash(row.id, digits)):
        await _note_failure(session, email, ip=ip, reason="wrong code")
        return Refused("wrong_code")
    row.used_at = real_now()
    try:
        customer = await ensure_customer(session, email)
    except SignInError as error:
        return Refused(error.code)
    auth = await _confirm_address(session, customer)
    return await _open_session(session, auth, how="code", ip=ip, user_agent=user_agent)


async def sign_in_with_password(
    session: AsyncSession, email: str, password: str, *, ip: str | None, user_agent: str | None
) -> SignedIn | Refused:
    """Sign in an account that has a password, as admins made on the command line have.

    Takes as long for an unknown address as for a known one.
    Commit whatever comes back: a refusal counts.
    """
    try:
        email = normal_email(email)
    except SignInError:
        return Refused("wrong_password")
    ip, mark = limits.client_address(ip), limits.account_mark(email)
    if not await limits.may_try_password(session, mark=mark, ip=ip):
        return Refused("too_many")
    customer = await find_customer_by_email(session, email)
    auth = await queries.find_auth(session, customer.id) if customer else None
    known_hash = auth.password_hash if auth else None
    is_right = await password_matches(password[:LONGEST_PASSWORD], known_hash)
    if auth is None or not is_right:
        if auth is not None:
            auth.failed_logins += 1
        await _note_failure(session, email, ip=ip, reason="wrong password")
        return Refused("wrong_password")
    auth.failed_logins = 0
    return await _open_session(session, auth, how="password", ip=ip, user_agent=user_agent)


async def find_principal(session: AsyncSession, token: str) -> Principal | None:
    """Return who a session token belongs to, and count this as being active."""
    principal = await queries.find_principal(session, token)
    now = real_now()
    if principal is not None and principal.last_seen_at < now - SEEN_EVERY:
        await session.exec(
            sa.update(AuthSession)
            .where(col(AuthSession.id) == principal.session_id)
            .values(last_seen_at=now)
        )
    return principal


async def end_session(session: AsyncSession, token: str) -> None:
    """Sign out: the token is worth nothing from now on. An unknown token changes nothing."""
    ended = await _revoke(session, col(AuthSession.token_hash) == token_hash(token))
    for customer_id in ended:
        await audit(session, action="sign_out", user_id=customer_id, actor_id=str(customer_id))


async def revoke_session(session: AsyncSession, customer_id: UUID, session_id: UUID) -> None:
    """End one of a customer's own sessions, such as a lost phone's.

    Raises:
        NotFoundError: the customer has no such session.
    """
    of_customer = col(AuthSession.customer_id) == customer_id
    if not await _revoke(session, of_customer, col(AuthSession.id) == session_id):
        raise NotFoundError("There is no such session.")
    await audit(
        session, action="session.revoked", user_id=customer_id, actor_id=str(customer_id),
        resource_type="session", resource_id=str(session_id),
    )  # fmt: skip


async def revoke_all(
    session: AsyncSession,
    customer_id: UUID,
    *,
    except_session_id: UUID | None = None,
    actor_type: str = "customer",
    actor_id: str | None = None,
) -> int:
    """End all sessions of a customer but the named one, and return how many that were."""
    conditions = [col(AuthSession.customer_id) == customer_id]
    if except_session_id is not None:
        conditions.append(col(AuthSession.id) != except_session_id)
    ended = await _revoke(session, *conditions)
    await audit(
        session,
        action="session.all_revoked",
        user_id=customer_id,
        actor_type=actor_type,
        actor_id=actor_id or str(customer_id),
        diff={"sessions": len(ended)},
    )
    return len(ended)


async def create_admin(session: AsyncSession, email: str, password: str) -> Customer:
    """Make an admin, or make a customer one; the command line's user vouches for the address.

    Raises:
        SignInError: it is no e-mail address.
        ValidationError: the password is too short or too long.
    """
    if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
        raise ValidationError(
            f"A password has {SHORTEST_PASSWORD} to {LONGEST_PASSWORD} characters."
        )
    customer = await ensure_customer(session, email)
    auth = await session.get_one(CustomerAuth, customer.id)
    before = auth.role
    auth.role = Role.ADMIN
    auth.password_hash = await hash_password(password)
    auth.email_verified_at = auth.email_verified_at or real_now()
    auth.updated_at = await business_now(session)
    await revoke_all(session, customer.id, actor_type="operator", actor_id="command line")
    await audit(
        session,
        action="admin.created",
        user_id=customer.id,
        actor_type="operator",
        actor_id="command line",
        diff={"role": [before, Role.ADMIN], "password": "changed"},
    )
    return customer


async def queue_mail(
    session: AsyncSession,
    *,
    kind: str,
    recipient: str | None = None,
    customer_id: UUID | None = None,
    payload: dict[str, Any] | None = None,
    secret: str | None = None,
    dedupe_key: str | None = None,
) -> None:
    """Put a mail into the outbox, in the transaction that causes it; a dedupe key sends once.

    Without a recipient it goes to the customer's own address. `payload` is what `mails.write`
    reads; `secret` is stored encrypted and wiped once the mail is out.

    Raises:
        NotFoundError: there is neither a recipient nor such a customer.
    """
    if recipient is None:
        customer = await find_customer(session, customer_id) if customer_id else None
        if customer is None:
            raise NotFoundError("A mail needs a recipient or a customer.")
        recipient = customer.email
    now = real_now()
    await session.exec(
        insert(OutboxMail)
        .values(
            id=uuid4(),
            kind=str(kind),
            recipient=recipient,
            customer_id=customer_id,
            payload=payload or {},
            secret_ct=encrypt(MAIL_SECRET, secret) if secret else None,
            key_id=key_id() if secret else None,
            dedupe_key=dedupe_key,
            run_after=now,
            created_at=now,
        )
        .on_conflict_do_nothing(index_elements=["dedupe_key"])
    )
    after_commit(session, partial(redis.ring, MAIL_BELL))


async def audit(
    session: AsyncSession,
    *,
    action: str,
    actor_type: str = "customer",
    actor_id: str | None = None,
    user_id: UUID | None = None,
    resource_type: str | None = None,
    resource_id: str | None = None,
    reason: str | None = None,
    diff: dict[str, Any] | None = None,
    ip: str | None = None,
    user_agent: str | None = None,
    request_id: str | None = None,
) -> None:
    """Write down who did what.

    `diff` never holds an e-mail address, a Telegram id or a secret: say "changed".
    """
    session.add(
        AuditLog(
            action=action,
            actor_type=actor_type,
            actor_id=actor_id,
            user_id=user_id,
            resource_type=resource_type,
            resource_id=resource_id,
            reason=reason,
            diff=diff,
            ip_address=limits.client_address(ip),
            user_agent=user_agent[:USER_AGENT_LENGTH] if user_agent else None,
            request_id=request_id,
            created_at=real_now(),
        )
    )
    await session.flush()


async def _usable_code(session: AsyncSession, email: str) -> SignInCode | None:
    found = await session.exec(
        select(SignInCode)
        .where(
            SignInCode.email == email,
            SignInCode.purpose == "sign_in",
            col(SignInCode.used_at).is_(None),
            col(SignInCode.expires_at) > real_now(),
            col(SignInCode.attempts) < CODE_ATTEMPTS,
        )
        .order_by(col(SignInCode.created_at).desc())
        .limit(1)
        .with_for_update()
    )
    return found.first()


async def _confirm_address(session: AsyncSession, customer: Customer) -> CustomerAuth:
    """Note that the address is theirs; credentials that somebody set before that are dropped."""
    auth = await session.get_one(CustomerAuth, customer.id, populate_existing=True)
    if auth.email_verified_at is None:
        auth.password_hash = auth.totp_secret_ct = auth.totp_confirmed_at = None
        auth.email_verified_at = real_now()
    return auth


async def _open_session(
    session: AsyncSession, auth: CustomerAuth, *, how: str, ip: str | None, user_agent: str | None
) -> SignedIn:
    token, now = new_token(), real_now()
    user_agent = user_agent[:USER_AGENT_LENGTH] if user_agent else None
    session.add(
        AuthSession(
            customer_id=auth.customer_id,
            token_hash=token_hash(token),
            ip=ip,
            user_agent=user_agent,
            created_at=now,
            last_seen_at=now,
            expires_at=now + SESSION_LIFE,
        )
    )
    await audit(
        session,
        action="sign_in",
        user_id=auth.customer_id,
        actor_id=str(auth.customer_id),
        reason=how,
        ip=ip,
        user_agent=user_agent,
    )
    return SignedIn(customer_id=auth.customer_id, role=auth.role, token=token)


async def _revoke(session: AsyncSession, *conditions: sa.ColumnElement[bool]) -> list[UUID]:
    ended = await session.exec(
        sa.update(AuthSession)
        .where(col(AuthSession.revoked_at).is_(None), *conditions)
        .values(revoked_at=real_now())
        .returning(col(AuthSession.customer_id))
    )
    customers = list(ended.scalars())
    for customer_id in set(customers):
        after_commit(session, partial(redis.announce_change, customer_id))
    return customers


async def _note_failure(session: AsyncSession, email: str, *, ip: str | None, reason: str) -> None:
    await audit(
        session, action=limits.FAILED, actor_type="visitor", ip=ip, reason=reason, **_account(email)
    )


def _account(email: str) -> dict[str, Any]:
    return {"resource_type": "account", "resource_id": limits.account_mark(email)}


def _code_hash(row_id: UUID, code: str) -> str:
    return fingerprint("sign-in code", f"{row_id}:{code}").hex()
