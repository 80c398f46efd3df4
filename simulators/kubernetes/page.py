"""The page at `/`: a read-only look at the namespaces and their pods, for a browser."""

import html

from simulators.kubernetes import resources, tables
from simulators.kubernetes.cluster import Cluster
from simulators.kubernetes.logs import LogFiles
from simulators.kubernetes.objects import Object, is_ready, name_of, status_of
from simulators.kubernetes.selectors import in_order

LOG_LINES = 8
MOST_NAMESPACES = 50
_REFRESH_SECONDS = 5
_STYLE = """
:root { color-scheme: light dark; --line: #8884; --dim: #888; --good: #2a7d4f; --bad: #b3432f; }
@media (prefers-color-scheme: dark) { :root { --good: #6cc795; --bad: #f09a86; } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; margin: 0; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
p, .dim { color: var(--dim); margin: .25rem 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th { text-align: left; font-weight: 500; color: var(--dim); font-size: .85rem; }
th, td { padding: .4rem 1rem .4rem 0; border-bottom: 1px solid var(--line); white-space: nowrap; }
.good { color: var(--good); } .bad { color: var(--bad); }
pre { font-size: .8rem; margin: .25rem 0 1rem; padding: .6rem .8rem; overflow-x: auto;
  border-left: 2px solid var(--line);  color: var(--dim); }
"""


def page(cluster: Cluster, logs: LogFiles, kubeconfig: str) -> str:
    namespaces = in_order(cluster.store.objects(resources.NAMESPACES))
    store = cluster.store
    inhabited = [one for one in namespaces if store.objects(resources.PODS, name_of(one))]
    shown = [_namespace(cluster, logs, one) for one in inhabited[:MOST_NAMESPACES]]
    with_pods = {name_of(one) for one in inhabited}
    empty = [name_of(one) for one in namespaces if name_of(one) not in with_pods][:MOST_NAMESPACES]
    body = "".join(shown) or "<p>No pods yet. They appear here as soon as a box is made.</p>"
    if more := len(inhabited) - len(shown):
        body += f"<p>And {more} more namespaces with pods.</p>"
    others = f"<p>Without pods: {html.escape(', '.join(empty))}</p>" if empty else ""
    command = html.escape(f"kubectl --kubeconfig {kubeconfig} get pods -A")
    return (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width, initial-scale=1'>"
        f"<meta http-equiv=refresh content={_REFRESH_SECONDS}>"
        f"<title>Development cluster</title><style>{_STYLE}</style>"
        "<main><h1>Development cluster</h1>"
        "<p>Pods are local processes on this machine, without isolation. This page only looks.</p>"
        f"<p><code>{command}</code></p>{body}{others}</main></html>"
    )


def _namespace(cluster: Cluster, logs: LogFiles, namespace: Object) -> str:
    pods = in_order(cluster.store.objects(resources.PODS, name_of(namespace)))
    if not pods:
        return ""
    phase = status_of(namespace).get("phase", "")
    note = " <span class=bad>ending</span>" if phase == "Terminating" else ""
    titles = "".join(
        f"<th>{one}</th>" for one in ("Pod", "Status", "Ready", "Restarts", "Age", "IP")
    )
    rows = "".join(_pod(logs, pod) for pod in pods)
    return (
        f"<section><h2>{html.escape(name_of(namespace))}{note}</h2><div class=scroll>"
        f"<table><thead><tr>{titles}</tr></thead><tbody>{rows}</tbody></table></div></section>"
    )


def _pod(logs: LogFiles, pod: Object) -> str:
    phase = tables.pod_phase(pod)
    tone = "good" if is_ready(pod) else "bad"
    statuses = status_of(pod).get("containerStatuses") or []
    ready = sum(bool(one.get("ready")) for one in statuses)
    cells = (
        html.escape(name_of(pod)),
        f"<span class={tone}>{html.escape(phase)}</span>",
        f"{ready}/{len(pod['spec']['containers'])}",
        str(sum(one.get("restartCount", 0) for one in statuses)),
        tables.age(pod["metadata"]["creationTimestamp"]),
        html.escape(status_of(pod).get("podIP", "-")),
    )
    row = "".join(f"<td>{cell}</td>" for cell in cells)
    tail = html.escape(logs.tail(pod, LOG_LINES).rstrip())
    said = f"<pre>{tail}</pre>" if tail else "<span class=dim>no output yet</span>"
    return f"<tr>{row}</tr><tr><td colspan={len(cells)}>{said}</td></tr>"
