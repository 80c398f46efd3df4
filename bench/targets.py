"""What is measured: the provider directly, nginx before it, our forms, and peers."""

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

import psutil

from bench import peers
from bench.customer import Holder
from bench.machine import Processes
from bench.stack import Server, Stack, wait_until_answers
from openclaw_web.core import compiled
from openclaw_web.local import ports
from openclaw_web.local.children import Command

DIRECT = "direct"
NGINX = "nginx"
OURS = "ours-alone"
UNFLUSHED = "ours-unflushed"

_NGINX_CONFIGURATION = """
worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx-errors.log;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 1000000000;
  client_body_buffer_size 1m; client_max_body_size 32m; client_body_temp_path {folder};
  proxy_temp_path {folder}; fastcgi_temp_path {folder}; uwsgi_temp_path {folder};
  scgi_temp_path {folder};
  upstream provider {{ server 127.0.0.1:{upstream}; keepalive 300;
    keepalive_requests 1000000000; }}
  server {{ listen 127.0.0.1:{port} backlog=2048;
    location / {{ proxy_pass http://provider; proxy_http_version 1.1;
      proxy_set_header Connection ""; proxy_buffering off; }} }}
}}
"""


@dataclass(frozen=True)
class Target:
    """One way to the provider. `url` is what stands before `/v1`."""

    name: str
    url: str
    token: str = field(repr=False)
    server: Server | None = None
    stranger_port: int | None = None  # of a peer that runs already
    headers: Sequence[str] = ()
    is_ours: bool = False

    def processes(self) -> Processes:
        if self.server is not None:
            return self.server.processes()
        return [] if self.stranger_port is None else listeners(self.stranger_port)


def make_targets(stack: Stack, holder: Holder, wanted: Sequence[str]) -> list[Target]:
    """Start everything; what is not installed is left out, and said."""
    made = [Target(DIRECT, stack.upstream_url, holder.token)]
    if shutil.which(NGINX):
        server = start_nginx(stack, stack.upstream_port)
        made.append(Target(NGINX, server.url, holder.token, server))
    ours = [
        (stack.start_web(), "ours-mounted"),
        (stack.start_proxy(), OURS),
        (stack.start_proxy("unflushed", "bench.unflushed"), UNFLUSHED),
    ]
    if compiled.is_used():
        as_written = {compiled.SWITCH: compiled.OFF}
        ours.append((stack.start_proxy("interpreted", **as_written), "ours-interpreted"))
    for server, name in ours:
        is_ours = name != UNFLUSHED  # which writes its events when it ends
        made.append(Target(name, server.url, holder.token, server, is_ours=is_ours))
    for spelling in wanted:
        peer = peers.known(stack, spelling)
        if peer is None:
            sys.stderr.write(f"{peers.not_installed(spelling)}\n")
            continue
        made.append(
            Target(
                peer.name,
                peer.url,
                peer.token,
                peer.server,
                stranger_port=peer.port,
                headers=peer.headers,
            )
        )
    return made


def listeners(port: int) -> Processes:
    """Return the processes that listen on a port, and all below them."""
    found: dict[int, psutil.Process] = {}
    for connection in psutil.net_connections(kind="tcp"):
        is_it = connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
        if is_it and connection.pid:
            process = psutil.Process(connection.pid)
            found |= {one.pid: one for one in (process, *process.children(recursive=True))}
    return list(found.values())


def start_nginx(stack: Stack, upstream_port: int) -> Server:
    """Start nginx with kept connections to the provider: what a proxy costs at least."""
    port = ports.free_port()
    configuration = stack.folder / "nginx.conf"
    configuration.write_text(
        _NGINX_CONFIGURATION.format(folder=stack.folder, port=port, upstream=upstream_port),
        encoding="utf-8",
    )
    words = [shutil.which(NGINX) or NGINX, "-c", str(configuration)]
    server = stack.run(
        NGINX, f"http://{ports.LOOPBACK}:{port}", Command(words=words, stop_signal="QUIT")
    )
    wait_until_answers(f"{server.url}/__stats", server)
    return server
