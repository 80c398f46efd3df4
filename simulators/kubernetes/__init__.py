"""A development cluster on one machine: API server, controllers, and a kubelet of plain processes.

It speaks Kubernetes' own protocol to the official clients and to kubectl. It is for development
only: pods are local processes without isolation of network, files or memory.
"""
