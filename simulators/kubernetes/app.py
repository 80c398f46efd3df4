"""The cluster as one ASGI application: routes, the bearer token, how it starts and stops."""

import asyncio
import hmac
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from simulators import Asgi, Receive, Scope, Send
from simulators.kubernetes import discovery, errors, openapi, resources
from simulators.kubernetes.addresses import Addresses
from simulators.kubernetes.cluster import Cluster
from simulators.kubernetes.controllers import Controllers
from simulators.kubernetes.errors import ApiError
from simulators.kubernetes.folders import Owner, check_reachable, passage
from simulators.kubernetes.images import Images
from simulators.kubernetes.kubelet import Kubelet
from simulators.kubernetes.logs import LogFiles
from simulators.kubernetes.page import page
from simulators.kubernetes.pod import Node
from simulators.kubernetes.process import Lifeline
from simulators.kubernetes.recorder import Recorder
from simulators.kubernetes.requests import CONTENT_TYPES
from simulators.kubernetes.rest import Rest, answer
from simulators.kubernetes.schemas import Schemas
from simulators.kubernetes.secure import SecureDoor
from simulators.kubernetes.store import Store
from simulators.kubernetes.volumes import Volumes

HEALTH_PATHS = ("/healthz", "/livez", "/readyz")
OLD_OPENAPI = "/swagger-2.0.0.pb-v1"  # asked for by kubectl up to 1.27, which then says what to do
VENDOR_PATHS = ("/api", "/apis", "/version", "/openapi", OLD_OPENAPI, *HEALTH_PATHS)
FIRST_NAMESPACES = ("default", "kube-system")
_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"]
_DISCOVERY_DEPTH = {"api": 2, "apis": 3}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Where things are and who may come in."""

    state: Path
    volumes: Path
    images: Path
    kubeconfig: Path
    token: str
    owner: Owner | None
    door: SecureDoor


class ControlPlane:
    """Everything that lives as long as the process: the store, the controllers, the kubelet."""

    def __init__(self, settings: Settings) -> None:
        state = passage(settings.state)
        pods, volumes = passage(state / "pods"), passage(settings.volumes)
        for folder in (pods, volumes):
            check_reachable(folder.resolve(), settings.owner)
        self.store = Store(state / "cluster.sqlite")
        self.cluster = Cluster(self.store, Schemas(state))
        self._lifeline = Lifeline()
        node = Node(
            cluster=self.cluster,
            recorder=Recorder(self.cluster, "kubelet"),
            images=Images(settings.images),
            lifeline=self._lifeline,
            addresses=Addresses(),
            pods=pods.resolve(),
            volumes=volumes.resolve(),
            owner=settings.owner,
        )
        self.logs = LogFiles(self.cluster, node.pods)
        self._kubelet = Kubelet(node)
        self._controllers = Controllers(
            self.cluster, Volumes(self.cluster, node.volumes, settings.owner)
        )

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[list[Callable[[], None]]]:
        """Run until the end; yield the list of what else to end when the signal comes."""
        for name in FIRST_NAMESPACES:
            if self.cluster.find(resources.NAMESPACES, "", name) is None:
                self.cluster.create(resources.NAMESPACES, "", {"metadata": {"name": name}})
        self._kubelet.start()
        self._controllers.start()
        working = asyncio.ensure_future(self._controllers.run())
        trimming = asyncio.ensure_future(self.logs.keep_short())
        endings: list[Callable[[], None]] = [self.store.end_watches, self._kubelet.leave]
        _listen_for_the_end(endings)
        try:
            yield endings
        finally:
            working.cancel()
            trimming.cancel()
            self.store.end_watches()
            await self._kubelet.close()
            self._lifeline.close()
            self.store.close()


def _listen_for_the_end(endings: Sequence[Callable[[], None]]) -> None:
    """Begin to end at the signal itself: the server would wait for its connections first."""
    loop = asyncio.get_running_loop()

    def end_all() -> None:
        for end in endings:
            end()

    for number in (signal.SIGTERM, signal.SIGINT):
        before = signal.getsignal(number)

        def received(
            number: int,
            frame: FrameType | None,
            before: Callable[[int, FrameType | None], object] | int | None = before,
        ) -> None:
            loop.call_soon_threadsafe(end_all)
            if callable(before):
                before(number, frame)

        signal.signal(number, received)


def create(settings: Settings) -> Asgi:
    """Return the application, ready to be served."""
    plane = ControlPlane(settings)
    rest = Rest(plane.cluster, plane.logs)

    async def api(request: Request) -> Response:
        parts = [part for part in request.url.path.split("/") if part]
        if len(parts) <= _DISCOVERY_DEPTH[parts[0]]:
            return _discovery(request, parts)
        return await rest.handle(request)

    async def openapi_document(request: Request) -> Response:
        return _openapi(request, settings.state)

    async def overview(_: Request) -> Response:
        return HTMLResponse(page(plane.cluster, plane.logs, str(settings.kubeconfig)))

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncGenerator[None]:
        async with (
            plane.running() as endings,
            settings.door.serving(whole, CONTENT_TYPES, VENDOR_PATHS) as server,
        ):
            endings.append(server.end)
            yield

    guarded = _Guard(settings.token)
    app = Starlette(
        routes=[
            *(Route(path, _healthy) for path in HEALTH_PATHS),
            Route("/version", guarded(_version)),
            Route(OLD_OPENAPI, guarded(_unknown)),
            Route("/openapi/{rest:path}", guarded(openapi_document)),
            *(
                Route(path, guarded(api), methods=_METHODS)
                for path in ("/api", "/api/{rest:path}", "/apis", "/apis/{rest:path}")
            ),
            Route("/", overview),
        ],
        lifespan=lifespan,
    )
    whole = _without_upgrades(app)
    return whole


@dataclass(frozen=True)
class _Guard:
    """Lets only those with the bearer token through, and turns refusals into Status objects."""

    token: str

    def __call__(
        self, handler: Callable[[Request], Awaitable[Response]]
    ) -> Callable[[Request], Awaitable[Response]]:
        async def guarded(request: Request) -> Response:
            given = request.headers.get("authorization", "")
            try:
                if not hmac.compare_digest(given.encode(), f"Bearer {self.token}".encode()):
                    raise errors.unauthorized()
                return await handler(request)
            except ApiError as error:
                return answer(error.status(), error.code)

        return guarded


async def _healthy(_: Request) -> Response:
    return PlainTextResponse("ok")


async def _version(_: Request) -> Response:
    return answer(discovery.version())


async def _unknown(_: Request) -> Response:
    raise errors.unknown_resource()


def _discovery(request: Request, parts: list[str]) -> Response:
    if request.method not in {"GET", "HEAD"}:
        raise errors.not_allowed("the server does not allow this method on the requested resource")
    kind, *rest = parts
    if kind == "api":
        return answer(discovery.resource_list("", rest[0]) if rest else discovery.core_versions())
    if not rest:
        return answer(discovery.groups())
    if len(rest) == 1:
        return answer(discovery.group(rest[0]))
    return answer(discovery.resource_list(rest[0], rest[1]))


def _openapi(request: Request, state: Path) -> Response:
    address = request.path_params["rest"].strip("/")
    if address == "v3":
        return answer(openapi.index())
    if not address.startswith("v3/"):
        raise errors.unknown_resource()
    content = openapi.document(state, address.removeprefix("v3/"))
    return Response(content, media_type="application/json")


def _without_upgrades(app: Asgi) -> Asgi:
    """Answer websocket upgrades (exec, attach, port-forward) with a Status, not a bare refusal."""

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket":
            await app(scope, receive, send)
            return
        refusal = errors.not_allowed(
            "exec, attach and port-forward are not offered by this development cluster: its pods"
            " are local processes; use 'kubectl logs', or the pod's own address"
        )
        sent = answer(refusal.status(), refusal.code)
        await receive()
        start = {"status": sent.status_code, "headers": sent.raw_headers}
        await send({"type": "websocket.http.response.start", **start})
        await send({"type": "websocket.http.response.body", "body": sent.body})

    return wrapped
