"""The cluster as one ASGI application: routes, the bearer token, how it starts and stops."""

import asyncio
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
from simulators.kubernetes import discovery, errors, nodes, openapi, resources, roles
from simulators.kubernetes.access import Access
from simulators.kubernetes.addresses import Addresses
from simulators.kubernetes.answers import answer, refusal
from simulators.kubernetes.cluster import Cluster
from simulators.kubernetes.control import Control
from simulators.kubernetes.controllers import Controllers
from simulators.kubernetes.errors import ApiError
from simulators.kubernetes.faults import Faults
from simulators.kubernetes.folders import Owner, check_reachable, passage
from simulators.kubernetes.identity import Identities, User
from simulators.kubernetes.images import Images
from simulators.kubernetes.knobs import Knobs
from simulators.kubernetes.kubelet import Kubelet
from simulators.kubernetes.log_times import LogTimes
from simulators.kubernetes.logs import LogFiles
from simulators.kubernetes.memory import MemoryWatch
from simulators.kubernetes.page import page
from simulators.kubernetes.parts import Subresources
from simulators.kubernetes.pod import Node
from simulators.kubernetes.process import Lifeline
from simulators.kubernetes.questions import Questions
from simulators.kubernetes.recorder import Recorder
from simulators.kubernetes.records import Records
from simulators.kubernetes.requests import CONTENT_TYPES
from simulators.kubernetes.rest import Rest
from simulators.kubernetes.scheduler import Scheduler
from simulators.kubernetes.schemas import Schemas
from simulators.kubernetes.secure import SecureDoor
from simulators.kubernetes.snapshots import Snapshots, ensure_class
from simulators.kubernetes.store import Store
from simulators.kubernetes.volumes import Volumes

HEALTH_PATHS = ("/healthz", "/livez", "/readyz")
OLD_OPENAPI = "/swagger-2.0.0.pb-v1"  # asked for by kubectl up to 1.28, which then says what to do
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
    shares_address: bool = False


class ControlPlane:
    """Everything that lives as long as the process: the store, the controllers, the kubelet."""

    def __init__(self, settings: Settings) -> None:
        state = passage(settings.state)
        pods, volumes = passage(state / "pods"), passage(settings.volumes)
        for folder in (pods, volumes):
            check_reachable(folder.resolve(), settings.owner)
        self.store = Store(state / "cluster.sqlite")
        self.knobs = Knobs()
        self.cluster = Cluster(self.store, Schemas(state), self.knobs)
        self.identities = Identities(self.cluster, settings.token)
        scheduler = Scheduler(self.cluster, self.knobs)
        self.records = Records(
            self.cluster,
            scheduler,
            self.knobs,
            lambda name: nodes.register(self.cluster, self.knobs, name),
        )
        self._lifeline = Lifeline()
        node = Node(
            cluster=self.cluster,
            recorder=Recorder(self.cluster, "kubelet"),
            images=Images(settings.images),
            lifeline=self._lifeline,
            addresses=Addresses(is_shared=settings.shares_address),
            knobs=self.knobs,
            scheduler=scheduler,
            is_record=self.records.takes,
            memory=MemoryWatch(),
            times=LogTimes(),
            pods=pods.resolve(),
            volumes=volumes.resolve(),
            owner=settings.owner,
        )
        self.logs = LogFiles(self.cluster, node.pods, node.times)
        self._watchers = (node.memory.run, node.times.run, self.logs.keep_short)
        self._kubelet = Kubelet(node)
        self._controllers = Controllers(
            self.cluster,
            self.knobs,
            volumes=Volumes(self.cluster, node.volumes, settings.owner),
            records=self.records,
            snapshots=Snapshots(self.cluster, node.volumes, self._kubelet.frozen),
        )

    def look_again(self) -> None:
        """Take up changed settings."""
        self._kubelet.look_again()
        self._controllers.look_again()

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[list[Callable[[], None]]]:
        """Run until the end; yield the list of what else to end when the signal comes."""
        for name in FIRST_NAMESPACES:
            if self.cluster.find(resources.NAMESPACES, "", name) is None:
                self.cluster.create(resources.NAMESPACES, "", {"metadata": {"name": name}})
        roles.ensure(self.cluster)
        ensure_class(self.cluster)
        self._kubelet.start()
        self._controllers.start()
        works = (self._controllers.run, *self._watchers)
        working = [asyncio.ensure_future(work()) for work in works]
        endings: list[Callable[[], None]] = [self.store.end_watches, self._kubelet.leave]
        _listen_for_the_end(endings)
        try:
            yield endings
        finally:
            for each in working:
                each.cancel()
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
    access = Access(plane.cluster)
    rest = Rest(
        cluster=plane.cluster,
        parts=Subresources(plane.cluster, plane.logs, plane.identities),
        access=access,
        questions=Questions(access, plane.identities),
        faults=Faults(),
    )
    control = Control(
        plane.cluster,
        faults=rest.faults,
        knobs=plane.knobs,
        pages=rest.pages,
        identities=plane.identities,
        records=plane.records,
        look_again=plane.look_again,
    )

    async def api(request: Request, user: User) -> Response:
        parts = [part for part in request.url.path.split("/") if part]
        absent = "" if plane.knobs.now.snapshots else resources.SNAPSHOT_GROUP
        if absent and parts[1:2] == [absent]:
            raise errors.unknown_resource()
        if len(parts) <= _DISCOVERY_DEPTH[parts[0]]:
            return _discovery(request, parts, absent)
        return await rest.handle(request, user)

    async def openapi_document(request: Request, _: User) -> Response:
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

    guarded = _Guard(plane.identities, access)
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
            *control.routes(),
            Route("/", overview),
        ],
        lifespan=lifespan,
    )
    whole = _without_upgrades(app)
    return whole


@dataclass(frozen=True)
class _Guard:
    """Lets only known subjects through, and turns refusals into Status objects."""

    identities: Identities
    access: Access

    def __call__(
        self, handler: Callable[[Request, User], Awaitable[Response]]
    ) -> Callable[[Request], Awaitable[Response]]:
        async def guarded(request: Request) -> Response:
            try:
                user = self.identities.of_request(request)
                return await handler(request, self.access.impersonated(user, request.headers))
            except ApiError as error:
                return refusal(error)

        return guarded


async def _healthy(_: Request) -> Response:
    return PlainTextResponse("ok")


async def _version(_: Request, __: User) -> Response:
    return answer(discovery.version())


async def _unknown(_: Request, __: User) -> Response:
    raise errors.unknown_resource()


def _discovery(request: Request, parts: list[str], absent: str) -> Response:
    if request.method not in {"GET", "HEAD"}:
        raise errors.not_allowed("the server does not allow this method on the requested resource")
    kind, *rest = parts
    if kind == "api":
        return answer(discovery.resource_list("", rest[0]) if rest else discovery.core_versions())
    if not rest:
        return answer(discovery.groups(absent))
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
        refused = errors.not_allowed(
            "exec, attach and port-forward are not offered by this development cluster: its pods"
            " are local processes; use 'kubectl logs', or the pod's own address"
        )
        sent = refusal(refused)
        await receive()
        start = {"status": sent.status_code, "headers": sent.raw_headers}
        await send({"type": "websocket.http.response.start", **start})
        await send({"type": "websocket.http.response.body", "body": sent.body})

    return wrapped
