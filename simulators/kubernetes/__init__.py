"""A development cluster on one machine: API server, controllers, and a kubelet of plain processes.

It speaks Kubernetes' own protocol to the official clients and to kubectl. It is for development
only: pods are local processes without isolation of network, files or memory.

What it promises as a real cluster does: objects with their validation, patches, apply, watches and
pages; quotas, limits, Pod Security, roles; deployments, jobs, claims, probes, restarts, logs.

What it says but cannot enforce: network policies (`POST /_control/reach` works out what a network
plugin would let through), `readOnlyRootFilesystem`, users and capabilities. What it refuses: exec,
attach and port-forward, images that are not on the list, volumes other than claims, emptyDir,
Secrets and ConfigMaps, probes by exec and gRPC.

What it does on request, and no real cluster would, is below `/_control`: see `control`.
"""
